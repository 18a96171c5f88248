"""The order of the rooms: who may import whom, and what may be absent."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
FILES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCE.glob("lyra/**/*.py")
}


@cache
def imports_of(module: str) -> frozenset[str]:
    """The package's modules that a module's source imports, also inside functions and for type checkers alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            assert node.module is not None
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in found if name in FILES)


ORDER = (
    "errors",
    "geometry",
    "worlds",
    "files",
    "device",
    "rendering",
    "export",
    "scene",
    "capture",
    "cache",
    "depth",
    "tokenizer",
    "teacher",
    "student",
    "views",
    "models",
    "engine",
    "viewer",
    "generate",
    "synthesis",
    "simulation",
    "training",
    "evaluation",
    "bench",
    "cli",
)
"""A room may know those before it; imports inside functions count."""


def room_of(module: str) -> str:
    return module.split(".")[1]


def test_every_room_has_its_place():
    assert {room_of(name) for name in FILES if name != "lyra"} == set(ORDER)


def test_imports_go_one_way():
    wrong = []
    for module in sorted(set(FILES) - {"lyra"}):
        known = ORDER[: ORDER.index(room_of(module)) + 1]
        wrong += [f"{module} <- {name}" for name in imports_of(module) - {"lyra"} if room_of(name) not in known]
    assert wrong == []


def test_no_import_comes_back():
    """Of the graph of all modules; `from lyra.room import name` also names the room's front door."""
    done: set[str] = set()

    def follow(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for name in imports_of(module) - {"lyra", module}:
                if not module.startswith(f"{name}."):
                    follow(name, (*path, module))
            done.add(module)

    for module in set(FILES) - {"lyra"}:
        follow(module, ())


def test_every_file_has_a_name_of_its_own():
    names = [path.stem for path in FILES.values() if path.stem not in ("__init__", "__main__")]
    assert {name for name in names if names.count(name) > 1} == set()


def test_the_readme_names_every_room():
    readme = (SOURCE.parent / "README.md").read_text()
    assert {room for room in ORDER if f"`{room}`" not in readme and f"`{room}/`" not in readme} == set()


LIGHT = {
    "the renderer": "from lyra.rendering import render",
    "the Mamba-2 block": "from lyra.student.mamba2 import MambaBlock",
    "the cache's warp": "from lyra.cache.warp import build_cache, render_cache",
    "files": "from lyra.files import load_ply, save_ply",
    "the small tokenizer": "from lyra.tokenizer.linear import LinearTokenizer",
    "the teacher": "from lyra.teacher import DiffusionTeacher, TeacherConfig",
    "options of a scene": "from lyra.generate.options import GenerateOptions",
    "the depth network": "from lyra.depth import DepthNet",
}


def test_parts_do_not_drag_in_diffusers():
    lines = ["import sys"]
    for part, code in LIGHT.items():
        lines += [code, f"assert not {{'diffusers', 'transformers', 'av'}} & set(sys.modules), {part!r}"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_package_runs_without_its_optional_packages():
    code = (
        "import sys\n"
        "for name in ('av', 'viser', 'ray', 'gsplat', 'mamba_ssm', 'torchvision'): sys.modules[name] = None\n"
        "import lyra, lyra.models.loading, lyra.rendering, lyra.training.parts\n"
        "import lyra.cli.main, lyra.generate.pipeline, lyra.viewer.page, lyra.scene.film\n"
        "assert lyra.load('smoke').config.name == 'smoke'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
