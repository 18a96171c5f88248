"""Everything that prints or writes JSON passes a strict parser."""

import ast
import json
import math
from pathlib import Path

import pytest

from lyra.files.strict_json import to_json

SOURCE = Path(__file__).parents[1] / "src" / "lyra"


def strict(text: str):
    def refuse(name: str):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_numbers_that_are_none_become_null(value: float):
    content = {"a": value, "b": [1.5, value, {"c": (value,)}], "d": "NaN", "e": True, "f": None}
    assert strict(to_json(content)) == {"a": None, "b": [1.5, None, {"c": [None]}], "d": "NaN", "e": True, "f": None}


def test_options_reach_the_writer():
    assert to_json({"b": 1, "a": 2.5}, sort_keys=True) == '{"a": 2.5, "b": 1}'
    assert to_json([1], indent=1) == "[\n 1\n]"


def test_every_number_goes_through_it():
    """What is dumped without it holds no floats that a computation made: checksums, names and shapes."""
    allowed = {
        "files/strict_json.py",
        "files/tensors.py",
        "generate/run_folder.py",
        "generate/runs.py",
        "generate/decisions.py",
        "generate/pipeline.py",
        "models/model.py",
        "models/saving.py",
        "models/loading.py",
        "models/folder.py",
    }
    found = set()
    for path in SOURCE.glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("dumps", "dump") and ast.unparse(node.value) == "json":
                found.add(path.relative_to(SOURCE).as_posix())
    assert {name for name in found if not name.startswith("models/")} <= allowed
    assert not any(
        name.startswith(("cli/", "bench/", "evaluation/", "viewer/", "scene/", "training/")) for name in found
    )


def test_a_verification_and_a_log_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    import sys

    from lyra.cli.main import main
    from lyra.viewer import verification

    found = verification.Verification({"webgl": (verification.MOST_PSNR, 40.0)}, math.nan, math.inf, 30.0)
    monkeypatch.setattr(verification, "verify_scene", lambda *_: found)
    monkeypatch.setattr(sys, "argv", ["lyra", "verify", "scene", "--json"])
    main()
    assert strict(capsys.readouterr().out)["enlarged_alpha"] is None
