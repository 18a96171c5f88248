"""Folders of published weights: pinned, whole, and never more than weights and settings."""

import json
from pathlib import Path

import pytest

from lyra.errors import LyraError
from lyra.files.hub import fetch_folder

PINNED = "owner/name@" + "b" * 40


@pytest.mark.parametrize(
    "source", ["nowhere", "owner/name", "owner/name@main", "owner/name@" + "a" * 39, "../x@" + "a" * 40]
)
def test_a_source_is_a_folder_or_pinned(source: str):
    with pytest.raises(LyraError, match="40 hex digits"):
        fetch_folder(source)


def test_a_pinned_source_that_cannot_be_reached_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = {}

    def fake(**arguments):
        asked.update(arguments)
        raise OSError("no\nnetwork")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    with pytest.raises(LyraError, match="cannot fetch owner/name") as caught:
        fetch_folder("owner/name@" + "b" * 40, ("text_encoder",))
    assert "\n" not in str(caught.value)
    assert asked["revision"] == "b" * 40
    # Neither pickles nor code are ever asked for.
    assert not any(name.endswith((".bin", ".pt", ".py", ".pkl", "*")) for name in asked["allow_patterns"])


def test_offline_asks_nobody(monkeypatch: pytest.MonkeyPatch):
    calls = []

    def fake(**arguments):
        calls.append(arguments.get("local_files_only", False))
        raise OSError("not here")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    with pytest.raises(LyraError, match="HF_HUB_OFFLINE"):
        fetch_folder("owner/name@" + "b" * 40)
    assert calls == [True]


def write(folder: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


WHOLE = {"part/config.json": {"_class_name": "Network"}, "part/model.safetensors": {}}
INTERRUPTED = {
    "a config alone": {"config.json": {"model_type": "t5"}},
    "a part without its weights": {**WHOLE, "other/config.json": {"_class_name": "Network"}},
    "a shard that is missing": {
        **WHOLE,
        "big/x.safetensors.index.json": {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}},
        "big/1.safetensors": {},
    },
    "a file of lyra.json": {**WHOLE, "lyra.json": {"checksums": {"part/model.safetensors": "", "vae/x.json": ""}}},
}


@pytest.mark.parametrize("files", [*INTERRUPTED.values(), WHOLE], ids=[*INTERRUPTED, "whole"])
def test_an_interrupted_download_is_gone_on_with(files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The client gives what there is where it may not ask the hub."""
    here, there = write(tmp_path / "here", files), tmp_path / "there"
    asked = []

    def fake(local_files_only: bool = False, **_):
        asked.append(local_files_only)
        return str(here if local_files_only else there)

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    assert fetch_folder(PINNED) == (here if files is WHOLE else there)
    assert asked == ([True] if files is WHOLE else [True, False])
