"""The order of the rooms: who may import whom, and what may be absent."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
FILES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCE.glob("lyra/**/*.py")
}


@cache
def imports_of(module: str, late: bool = True) -> frozenset[str]:
    """The package's modules that a module's source imports; ``late`` counts imports inside functions."""
    tree = ast.parse(FILES[module].read_text())
    found: set[str] = set()
    for node in ast.walk(tree) if late else top_level(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            assert node.module is not None
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in found if name in FILES)


def top_level(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes outside functions and type-checking blocks."""
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not typing_only:
            yield child
            yield from top_level(child)


def modules_in(room: str) -> list[str]:
    return [name for name in FILES if name == f"lyra.{room}" or name.startswith(f"lyra.{room}.")]


def reach(module: str) -> set[str]:
    """Everything that importing a module loads, the package's own front door apart."""
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        if name not in seen and name != "lyra":
            seen.add(name)
            todo += imports_of(name, late=False)
    return seen


def in_rooms(names: set[str] | frozenset[str], rooms: tuple[str, ...]) -> set[str]:
    return {name for name in names for room in rooms if name in modules_in(room)}


UPSTAIRS = ("teacher", "student", "training", "pipeline")


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        *((room, UPSTAIRS) for room in ("cameras", "gaussians", "errors", "trajectories", "formats")),
        ("rendering", UPSTAIRS),
        ("cache", UPSTAIRS),
        ("tokenizer", UPSTAIRS),
        ("student", ("teacher", "rendering", "training", "pipeline")),
        ("teacher", ("student", "rendering", "training", "pipeline")),
    ],
)
def test_lower_rooms_know_nothing_of_upper_ones(room: str, forbidden: tuple[str, ...]):
    assert modules_in(room)
    for module in modules_in(room):
        assert not in_rooms(imports_of(module), forbidden), module
        assert not in_rooms(reach(module), forbidden), module


def importers_of(room: str, late: bool = True) -> set[str]:
    inside = set(modules_in(room))
    return {module for module in FILES if module not in inside and imports_of(module, late) & inside}


def test_only_the_command_line_and_the_doctor_know_the_pipeline():
    assert importers_of("pipeline") <= {"lyra.cli.main", "lyra.cli.doctor", "lyra.models.model"}
    # A model generates by the pipeline, which it may know only inside that function.
    assert "lyra.models.model" not in importers_of("pipeline", late=False)


def test_only_the_command_line_and_its_bench_know_training():
    assert importers_of("training") <= {"lyra.cli.main", "lyra.cli.learn", "lyra.bench.training_cost"}


def test_nothing_imports_the_command_line():
    assert importers_of("cli") == set()


def test_importing_a_module_never_comes_back_to_it():
    for module in FILES:
        below = set().union(*(reach(name) for name in imports_of(module, late=False) - {module, "lyra"}))
        # A package's own modules load beside it.
        assert module not in below or any(name.startswith(f"{module}.") for name in imports_of(module)), module


def test_the_package_runs_without_its_optional_packages():
    code = (
        "import sys\n"
        "for name in ('av', 'viser', 'ray', 'gsplat', 'mamba_ssm', 'torchvision'): sys.modules[name] = None\n"
        "import lyra, lyra.models.model, lyra.rendering, lyra.training.parts\n"
        "import lyra.cli.main, lyra.generate.pipeline, lyra.viewer.page, lyra.scene.film\n"
        "assert lyra.load('smoke').config.name == 'smoke'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
