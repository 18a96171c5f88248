"""The ``smoke`` model: real classes, tiny, random weights, made in a second; for tests and for trying the plumbing."""

import torch

from lyra.geometry.trajectories import noise_generator
from lyra.models.model import Model
from lyra.models.recipe import SMOKE, create_model
from lyra.tokenizer.linear import LinearTokenizer, fit_linear_tokenizer


def build_smoke_model() -> Model:
    """Always the same model; its tokenizer is fitted to smooth noise, its networks are random."""
    model = create_model(SMOKE)
    teacher = model.config.teacher
    coarse = torch.rand(16, 3, 3, 6, 6, generator=noise_generator(0, "smoke"))
    size = (teacher.frames, teacher.height, teacher.width)
    videos = torch.nn.functional.interpolate(coarse, size=size, mode="trilinear", align_corners=True) * 2 - 1
    assert isinstance(model.tokenizer, LinearTokenizer)
    fit_linear_tokenizer([videos], model.tokenizer)
    return model
