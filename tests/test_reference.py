"""The reference of the public API: complete, with shapes, and its pages and the docs' links lead somewhere."""

import ast
import importlib.util
import inspect
import re
import typing
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
from test_docs import PAGES, ROOT, blocks_of

_spec = importlib.util.spec_from_file_location("reference", ROOT / "recipes/reference.py")
assert _spec is not None and _spec.loader is not None
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)


def public() -> Iterator[tuple[str, object]]:
    """Every public class, function, method and property by name."""
    for module in reference.PUBLIC:
        for name, value in reference.public_objects(module).items():
            yield f"{module}.{name}", value
            for key, member in vars(value).items() if inspect.isclass(value) else ():
                function = getattr(member, "fget", getattr(member, "__func__", member))
                if inspect.isfunction(function) and not key.startswith("_"):
                    yield f"{module}.{name}.{key}", function


def hides_shape(annotation: object) -> bool:
    """Whether an annotation names a tensor or an array without its shape."""
    bare = annotation in (torch.Tensor, np.ndarray)
    return bare or any(hides_shape(part) for part in typing.get_args(annotation) if not isinstance(part, str))


def untyped(value: object) -> list[str]:
    """What of a class or function has no type, or a tensor's without a shape."""
    if inspect.isclass(value):
        fields = vars(value).get("__annotations__", {})
        return [name for name, kind in fields.items() if not name.startswith("_") and hides_shape(kind)]
    if not inspect.isfunction(value):
        return []
    signature = inspect.signature(value)
    kinds = {key: p.annotation for key, p in signature.parameters.items() if key not in ("self", "cls")}
    kinds["return"] = signature.return_annotation
    return [key for key, kind in kinds.items() if kind is inspect.Signature.empty or hides_shape(kind)]


def test_every_public_thing_is_described():
    assert [name for name, value in public() if not (getattr(value, "__doc__", "") or "").strip()] == []


def test_every_public_tensor_has_a_shape():
    found = list(public())
    assert len(found) > 300
    assert {name: missing for name, value in found if (missing := untyped(value))} == {}


def test_missing_shapes_are_noticed():
    def wrong(a, b: torch.Tensor | None, c: list[np.ndarray], d: int) -> torch.Tensor: ...

    assert untyped(wrong) == ["a", "b", "c", "return"]


def test_what_the_docs_import_is_public():
    imported = {
        node.module
        for page in PAGES
        for _, code, _ in blocks_of(page)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and node.module
    }
    assert {name for name in imported if name.split(".")[0] == "lyra"} <= set(reference.PUBLIC)


class Links(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key in ("href", "src") and value:
                self.links.add(value)
            elif key == "id" and value:
                self.anchors.add(value)


def headings(text: str) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links_of(page: Path) -> tuple[set[str], set[str]]:
    """The links out of a page, and the anchors in it."""
    text = page.read_text()
    if page.suffix == ".html":
        found = Links(text)
        return found.links, found.anchors
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r"\]\(([^)\s]+)\)", prose)), headings(text)


def broken(pages: list[Path]) -> list[str]:
    """Links to files that are not there, or to anchors that the page does not have."""
    wrong = []
    for page in pages:
        for link in links_of(page)[0]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            there = target.exists()
            if there and parts.fragment:
                there = unquote(parts.fragment) in links_of(target)[1]
            if not there:
                wrong.append(f"{page.name}: {link}")
    return wrong


def test_links_of_the_docs_lead_somewhere():
    assert sum(len(links_of(page)[0]) for page in PAGES) > 12
    assert broken([*PAGES, ROOT / "CHANGELOG.md"]) == []


def test_broken_links_are_noticed(tmp_path: Path):
    page, other = tmp_path / "page.md", tmp_path / "other.html"
    page.write_text("# A page\n[one](other.html#here) [two](other.html#there) [c](gone.md) [d](#a-page) [e](#no)")
    other.write_text('<p id="here"><a href="page.md#a-page">back</a><img src="gone.png"></p>')
    expected = {"page.md: other.html#there", "page.md: gone.md", "page.md: #no", "other.html: gone.png"}
    assert set(broken([page, other])) == expected


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    reference.build(folder)
    return folder


def test_the_reference_has_all_pages_and_no_broken_link(built: Path):
    pages = sorted(built.rglob("*.html"))
    names = {".".join(page.relative_to(built).with_suffix("").parts) for page in pages}
    assert names == {*reference.PUBLIC, "index"}
    assert broken(pages) == []


def test_the_reference_shows_shapes_and_sections(built: Path):
    page = (built / "lyra/rendering.html").read_text()
    text = re.sub(r"<[^>]+>", "", page)
    assert "view 3 height width" in text and "Raises:" in text and "section" in text
    assert ":func:" not in text and ":class:" not in text
