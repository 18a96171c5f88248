"""The first image of a scene from text, by a text-to-image pipeline of diffusers that is loaded late and released."""

import gc
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.errors import LyraError
from lyra.files.hub import fetch_folder


@dataclass(frozen=True)
class ImageModel:
    """A text-to-image pipeline and how it is sampled."""

    source: str
    """Folder, or hub name with a pinned commit."""
    steps: int | None = None
    """The pipeline's own number when None."""
    guidance: float | None = None
    """The pipeline's own value when None."""
    area: int = 1024 * 1024
    """Pixels of its pictures, about."""


DEFAULT_IMAGE_MODEL = ImageModel(
    "Tongyi-MAI/Z-Image-Turbo@f332072aa78be7aecdf3ee76d5c247082da564a6", steps=9, guidance=0.0
)
"""Apache-2.0, 6 billion parameters, distilled to few steps."""
_SIDE = 32
"""Sides are multiples of it."""


def draw_first_image(
    prompt: str, model: ImageModel, height: int, width: int, seed: int, device: str = "cpu"
) -> Float[Tensor, "3 image_height image_width"]:
    """A picture of the prompt in [0, 1], in about the aspect ratio of ``height`` by ``width``.

    Raises:
        LyraError: there is no such pipeline, or it is no text-to-image pipeline.
    """
    from diffusers import DiffusionPipeline

    folder = fetch_folder(model.source)
    try:
        pipeline: Any = DiffusionPipeline.from_pretrained(
            folder,
            torch_dtype=torch.float32 if device == "cpu" else torch.bfloat16,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise LyraError(f"{model.source} holds no pipeline that diffusers can load ({reason})") from error
    accepted = inspect.signature(pipeline.__call__).parameters
    if not {"prompt", "height", "width", "generator"} <= set(accepted) or "num_frames" in accepted:
        raise LyraError(f"{model.source} is no text-to-image pipeline ({type(pipeline).__name__})")
    if device.startswith("cuda"):
        pipeline.enable_model_cpu_offload(device=device)
    pipeline.set_progress_bar_config(desc="first image")
    scale = (model.area / (height * width)) ** 0.5
    rows, columns = (max(_SIDE, round(side * scale / _SIDE) * _SIDE) for side in (height, width))
    wishes = {"num_inference_steps": model.steps, "guidance_scale": model.guidance}
    picture = pipeline(
        prompt=prompt,
        height=rows,
        width=columns,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
        **{name: value for name, value in wishes.items() if value is not None and name in accepted},
    ).images[0]
    del pipeline
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    return torch.from_numpy(picture).permute(2, 0, 1).float().clamp(0, 1)
