"""The guardrail's hook, with a stand-in for its package."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from lyra.errors import LyraError
from lyra.teacher.guardrail import Guardrail, choose_guardrail, licence_asks

NVIDIA = "NVIDIA Open Model License"


class Checker:
    def to(self, device):
        self.device = device

    def check_text_safety(self, text: str) -> bool:
        return "bad" not in text

    def check_video_safety(self, frames: np.ndarray) -> np.ndarray | None:
        assert frames.dtype == np.uint8
        assert frames.shape[-1] == 3
        return None if frames.max() == 255 else frames


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = ModuleType("cosmos_guardrail")
    stand_in.CosmosSafetyChecker = Checker  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "cosmos_guardrail", stand_in)


def test_it_is_on_for_weights_whose_licence_asks():
    assert licence_asks(NVIDIA)
    assert licence_asks("Apache-2.0; NVIDIA Open Model License Agreement")
    assert not licence_asks("Apache-2.0")
    assert choose_guardrail("Apache-2.0", "auto") is None
    assert choose_guardrail(NVIDIA, "off") is None


@pytest.mark.parametrize(("licence", "choice"), [(NVIDIA, "auto"), ("Apache-2.0", "on")])
def test_without_its_package_it_says_what_to_do(licence: str, choice, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cosmos_guardrail", None)
    with pytest.raises(LyraError, match=r"pip install cosmos-guardrail .*--guardrail off"):
        choose_guardrail(licence, choice)


@pytest.mark.usefixtures("package")
def test_it_refuses_what_the_package_refuses():
    guardrail = choose_guardrail(NVIDIA, "auto")
    assert isinstance(guardrail, Guardrail)
    guardrail.check_text("a room")
    guardrail.check_video(torch.zeros(5, 3, 8, 6, dtype=torch.uint8))
    with pytest.raises(LyraError, match="refuses this prompt"):
        guardrail.check_text("a bad room")
    with pytest.raises(LyraError, match="refuses a clip"):
        guardrail.check_video(torch.full((5, 3, 8, 6), 255, dtype=torch.uint8))
