"""The documentation: every Python block runs, and every link leads somewhere."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LIGHT = "## Without diffusers"
RUNNER = """
import json, sys, traceback
for name, code, light in json.load(sys.stdin):
    try:
        exec(compile(code, name, "exec"), {"__name__": name})
    except BaseException:
        sys.exit(f"{name}:\\n{code}\\n{traceback.format_exc()}")
    heavy = {"diffusers", "transformers"} & set(sys.modules)
    if light and heavy:
        sys.exit(f"{name} imports {heavy}")
"""


def blocks_of(page: Path) -> list[tuple[str, str, bool]]:
    """The Python blocks of a page: name, code, and whether it stands where nothing heavy is imported."""
    text, light, found = page.read_text(), False, []
    for match in re.finditer(r"^(## [^\n]*)$|^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if match[1]:
            light = match[1] == LIGHT
        else:
            line = text[: match.start()].count("\n") + 2
            found.append((f"{page.name}:{line}", match[2], light))
    return found


def run_blocks(blocks: list[tuple[str, str, bool]], folder: Path) -> None:
    """In one fresh process, each in a namespace of its own, beside a photo and a video."""
    shutil.copy(ROOT / "examples/room.png", folder / "photo.jpg")
    shutil.copy(ROOT / "examples/walk.mp4", folder)
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        cwd=folder,
        input=json.dumps(blocks),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("light", [True, False])
def test_the_parts_work_alone_as_the_docs_say(light: bool, tmp_path: Path):
    blocks = [block for block in blocks_of(ROOT / "docs/parts.md") if block[2] == light]
    assert len(blocks) >= 4
    run_blocks(blocks, tmp_path)


def test_a_light_block_that_is_not_is_noticed(tmp_path: Path):
    with pytest.raises(AssertionError, match="heavy imports"):
        run_blocks([("heavy", "import sys\nsys.modules['diffusers'] = sys", True)], tmp_path)


@pytest.mark.slow
def test_all_other_blocks_run(tmp_path: Path):
    """At the model's own size; they find the scene of the README's first command."""
    first = "import lyra\nlyra.load('mini').generate('photo.jpg', 'scenes/room', size=128)"
    blocks = [block for page in PAGES if page.name != "parts.md" for block in blocks_of(page)]
    assert {name.partition(":")[0] for name, *_ in blocks} >= {"README.md", "simulator.md"}
    run_blocks([("make scene", first, False), *blocks], tmp_path)
