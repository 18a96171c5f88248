"""What published files are called and allowed for."""

from lyra.models.convert.checkpoints import Checkpoint
from lyra.models.folder import ModelConfig, Origin
from lyra.teacher import TeacherConfig

LICENCE = "NVIDIA Open Model License"
"""Of GEN3C-Cosmos-7B, the Cosmos tokenizer and Lyra's decoders."""


def fresh_config(precision: str = "float32") -> ModelConfig:
    """``lyra.json`` of a folder for published weights: 121 frames of 704x1280, sampled as published."""
    return ModelConfig("gen3c", LICENCE, TeacherConfig(published_warp=True), precision=precision)


def origin_of(checkpoint: Checkpoint) -> Origin:
    """Where a converted part came from."""
    return Origin(checkpoint.name, checkpoint.sha256, LICENCE)
