"""Another teacher: Wan VACE fills the holes of the cache's renders, and the student's tokenizer encodes its clips.

The model was trained to complete masked videos, not warped ones: what the cache shows is kept, its holes are made. It
stands behind ``VideoTeacher`` as any other teacher, which needs a tokenizer that was trained with the student's.

Source: ``WanVACEPipeline`` of diffusers (VACE, arXiv 2503.07598).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import WanVACEPipeline
from jaxtyping import Float
from torch import Tensor

from lyra.cache.warp import CacheViews
from lyra.device.memory import Placement
from lyra.errors import LyraError
from lyra.files.hub import fetch_folder
from lyra.geometry.trajectories import noise_generator
from lyra.teacher.diffusion import TeacherConfig, TeacherRequest
from lyra.tokenizer.tiling import place_tokenizer
from lyra.tokenizer.tokenizer import Tokenizer

TEXT_TOKENS = 512
"""What the network was trained with; shorter texts end in zeros, longer ones are cut."""


@dataclass(frozen=True)
class WanSampling:
    """How Wan VACE is sampled; the published values."""

    steps: int = 50
    guidance: float = 5.0
    """Conditional over unconditional, 1 for one pass."""
    conditioning: float = 1.0
    """Weight of the masked video."""


class WanVACETeacher:
    """``WanVACEPipeline`` fed with the cache; its pictures become the student's latents."""

    def __init__(
        self,
        pipeline: WanVACEPipeline,
        tokenizer: Tokenizer,
        text: Float[Tensor, "text_token text_channel"],
        negative_text: Float[Tensor, "text_token text_channel"],
        config: TeacherConfig,
        sampling: WanSampling | None = None,
    ):
        self.pipeline: Any = pipeline
        self.tokenizer = tokenizer
        self.text = text
        self.negative_text = negative_text
        self.config = config
        self.sampling = sampling or WanSampling()
        if (config.frames - 1) % self.pipeline.vae_scale_factor_temporal:
            step = self.pipeline.vae_scale_factor_temporal
            raise LyraError(f"{config.frames} frames: this teacher takes 1 + {step} n, as the student must then too")

    @torch.no_grad()
    def imagine(self, request: TeacherRequest) -> Float[Tensor, "channel latent_time latent_height latent_width"]:
        """Normalized latents of the clip by the student's tokenizer, in float32."""
        video = self.imagine_video(request)
        return self.tokenizer.normalize(self.tokenizer.encode(video[None] * 2 - 1))[0].float()

    @torch.no_grad()
    def imagine_video(self, request: TeacherRequest) -> Float[Tensor, "3 time height width"]:
        """The clip's pictures in [0, 1]."""
        shown, holes = mask_video(request.image, self.config.view_cache(request.cache, request.cameras))
        time, _, height, width = shown.shape
        output = self.pipeline(
            video=shown[None],
            mask=holes[None, :, None].expand(-1, -1, 3, -1, -1),
            prompt_embeds=self.text[None],
            negative_prompt_embeds=self.negative_text[None],
            height=height,
            width=width,
            num_frames=time,
            num_inference_steps=self.sampling.steps,
            guidance_scale=self.sampling.guidance,
            conditioning_scale=self.sampling.conditioning,
            generator=noise_generator(request.seed, f"wan/{request.name}"),
            output_type="pt",
        )
        return output.frames[0].float().cpu().clamp(0, 1).movedim(0, 1)


def mask_video(
    image: Float[Tensor, "3 height width"], views: CacheViews
) -> tuple[Float[Tensor, "time 3 height width"], Float[Tensor, "time height width"]]:
    """The video to complete in [0, 1], gray in its holes, and its mask, 1 where something is to be made.

    Of several buffers the nearest point counts. The first frame is the input image, whole.
    """
    distance = torch.where(views.masks > 0, views.depth, torch.inf)
    nearest = distance.argmin(dim=1, keepdim=True)
    picture = views.images.gather(1, nearest[:, :, None].expand(-1, -1, 3, -1, -1))[:, 0]
    holes = (distance.min(dim=1).values == torch.inf).float()
    shown = torch.where(holes[:, None] > 0, torch.zeros_like(picture), picture) / 2 + 0.5
    shown[0], holes[0] = image / 2 + 0.5, 0
    return shown.clamp(0, 1), holes


def load_wan_teacher(
    source: str,
    tokenizer: Tokenizer,
    config: TeacherConfig,
    placement: Placement,
    prompt: str = "",
    sampling: WanSampling | None = None,
) -> WanVACETeacher:
    """Wan VACE from a folder or ``owner/name@commit``, with its text encoder used once and released.

    Of ``config`` the frames and the cache's settings count; sampler, steps and guidance are ``sampling``'s.

    Raises:
        LyraError: there is no such pipeline.
    """
    folder = fetch_folder(source)
    gpu = placement.device.startswith("cuda")
    try:
        pipeline: Any = WanVACEPipeline.from_pretrained(
            folder,
            torch_dtype=torch.bfloat16 if gpu else torch.float32,
            local_files_only=True,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise LyraError(f"{source} holds no Wan VACE pipeline ({reason})") from error
    with placement.hosting(pipeline.text_encoder):
        text, negative = embed_prompts(pipeline, [prompt, ""], placement.device)
    pipeline.register_modules(text_encoder=None, tokenizer=None)
    if gpu:
        pipeline.enable_model_cpu_offload(device=placement.device)
    pipeline.set_progress_bar_config(disable=True)
    return WanVACETeacher(pipeline, place_tokenizer(tokenizer, placement), text, negative, config, sampling)


@torch.no_grad()
def embed_prompts(
    pipeline: Any, texts: Sequence[str], device: str = "cpu"
) -> Float[Tensor, "text text_token text_channel"]:
    """Embeddings of some texts by a pipeline's encoder, which is on ``device``; on the CPU.

    The pipeline's own ``encode_prompt`` needs the package ftfy, for texts that were decoded wrongly.
    """
    cleaned = [" ".join(text.split()) for text in texts]
    given = pipeline.tokenizer(
        cleaned, padding="max_length", truncation=True, max_length=TEXT_TOKENS, return_tensors="pt"
    )
    mask = given["attention_mask"].to(device)
    states = pipeline.text_encoder(given["input_ids"].to(device), mask).last_hidden_state
    return (states * mask[..., None]).cpu()
