"""Wan VACE as a teacher: the real pipeline and networks, tiny and random."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanVACEPipeline, WanVACETransformer3DModel
from diffusers.pipelines.wan import pipeline_wan_vace
from test_text import make_encoder
from torch import Tensor
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from lyra.cache.warp import CacheViews, EdgeFilter, build_cache
from lyra.device.memory import Placement, weight_bytes
from lyra.errors import LyraError
from lyra.geometry.trajectories import trajectory_cameras
from lyra.models.preflight import needs_of_model, with_teacher
from lyra.models.smoke import build_smoke_model
from lyra.teacher import TeacherRequest, VideoTeacher
from lyra.teacher.wan import WanSampling, WanVACETeacher, embed_prompts, load_wan_teacher, mask_video

MODEL = build_smoke_model()


def make_pipeline(**text_parts: Any) -> WanVACEPipeline:
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    transformer = WanVACETransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=256,
        ffn_dim=32,
        num_layers=3,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
        vace_layers=[0, 2],
        vace_in_channels=96,
    )
    scheduler: Any = UniPCMultistepScheduler(flow_shift=3.0, prediction_type="flow_prediction", use_flow_sigmas=True)
    parts: dict[str, Any] = {"tokenizer": None, "text_encoder": None, **text_parts}
    pipeline = WanVACEPipeline(vae=vae, transformer=transformer, scheduler=scheduler, **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_pipeline(folder: Path) -> Path:
    """The pipeline as it is published: a folder with its text encoder and tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(make_encoder(folder / "t5") / "tokenizer")
    torch.manual_seed(2)
    encoder = UMT5EncoderModel(UMT5Config(vocab_size=16, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4))
    make_pipeline(text_encoder=encoder.eval(), tokenizer=tokenizer).save_pretrained(folder / "wan")
    return folder / "wan"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("saved"))


def make_teacher(**config) -> WanVACETeacher:
    text = torch.randn(8, 32, generator=torch.Generator().manual_seed(1))
    settings = replace(MODEL.config.teacher, **config)
    return WanVACETeacher(make_pipeline(), MODEL.tokenizer, text, 0 * text, settings, WanSampling(steps=2))


def make_request(seed: int = 3) -> TeacherRequest:
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    cameras = trajectory_cameras("left", 0.3, 5, torch.tensor([30.0, 30.0, 16.0, 16.0]), 32, 32)
    cache = build_cache(image[None], torch.full((1, 32, 32), 1.2), cameras[:1], EdgeFilter(3, 0.5))
    return TeacherRequest(image, cache, cameras, seed, "left")


def test_its_clips_are_latents_of_the_student_s_tokenizer():
    teacher = make_teacher()
    assert isinstance(teacher, VideoTeacher)
    request = make_request()
    latents = teacher.imagine(request)
    assert latents.shape == (16, 2, 8, 8)
    assert latents.dtype == torch.float32
    video = teacher.imagine_video(request)
    assert video.shape == (3, 5, 32, 32)
    tokenizer = MODEL.tokenizer
    assert torch.equal(latents, tokenizer.normalize(tokenizer.encode(video[None] * 2 - 1))[0])
    assert torch.equal(teacher.imagine(request), latents)
    assert not torch.allclose(teacher.imagine(make_request(seed=4)), latents, atol=1e-3)


def test_the_pipeline_is_given_the_cache_gray_in_its_holes(monkeypatch: pytest.MonkeyPatch):
    teacher, request, given = make_teacher(), make_request(), {}
    original = WanVACEPipeline.prepare_video_latents

    def spy(self, video: Tensor, mask: Tensor, *arguments, **options):
        given.update(video=video, mask=mask)
        return original(self, video, mask, *arguments, **options)

    monkeypatch.setattr(WanVACEPipeline, "prepare_video_latents", spy)
    teacher.imagine(request)
    views = teacher.config.view_cache(request.cache, request.cameras)
    video, mask = given["video"][0], given["mask"][0, 0]
    assert torch.allclose(video[:, 0], request.image, atol=1e-5)
    assert (mask[0] == 0).all()
    holes = views.masks[1:, 0] == 0
    assert holes.any()
    assert torch.equal(mask[1:] > 0.5, holes)
    assert torch.allclose(video[:, 1:][:, ~holes], views.images[1:, 0].movedim(0, 1)[:, ~holes], atol=1e-5)
    assert video[:, 1:][:, holes].abs().max() < 1e-5


def test_of_two_buffers_the_nearer_point_is_shown():
    images = torch.stack([torch.full((3, 4, 4), -0.5), torch.full((3, 4, 4), 0.5)])[None].repeat(2, 1, 1, 1, 1)
    depth = torch.ones(2, 2, 4, 4)
    depth[:, 0, :2] = 0.5
    depth[:, 0, 2:] = 2.0
    masks = torch.ones(2, 2, 4, 4)
    masks[:, 1, 3], masks[:, :, :, 0] = 0, 0
    shown, holes = mask_video(torch.zeros(3, 4, 4), CacheViews(images, masks, depth))
    assert (holes[1, :, 0] == 1).all()
    assert (holes[1, :, 1:] == 0).all()
    assert torch.allclose(shown[1, 0, :, 2], torch.tensor([0.25, 0.25, 0.75, 0.25]))
    assert torch.allclose(shown[1, :, :, 0], torch.tensor(0.5))


def test_a_number_of_frames_that_it_cannot_make_is_refused():
    with pytest.raises(LyraError, match="1 \\+ 4 n"):
        make_teacher(frames=7)


def test_what_is_no_such_pipeline_is_refused(tmp_path):
    with pytest.raises(LyraError, match="holds no Wan VACE pipeline"):
        load_wan_teacher(str(tmp_path), MODEL.tokenizer, MODEL.config.teacher, Placement())


def load(folder: Path, prompt: str = "") -> WanVACETeacher:
    settings = MODEL.config.teacher
    return load_wan_teacher(str(folder), MODEL.tokenizer, settings, Placement(), prompt, WanSampling(steps=2))


def test_a_saved_pipeline_is_loaded_and_imagines(saved: Path):
    teacher = load(saved, "a red room")
    assert teacher.text.shape == teacher.negative_text.shape == (512, 32)
    # "a red room" is three words and the end, no text the end alone.
    assert [(text != 0).any(-1).sum().item() for text in (teacher.text, teacher.negative_text)] == [4, 1]
    assert teacher.pipeline.text_encoder is None
    request = make_request()
    latents = teacher.imagine(request)
    assert latents.shape == (16, 2, 8, 8)
    assert torch.equal(load(saved, "a red room").imagine(request), latents)
    # Random weights hardly look at the text; the same text gives the very same clip.
    assert not torch.equal(load(saved, "a blue room").imagine(request), latents)
    # The saved networks are those that were made: the same clip as by the pipeline in memory with the same text.
    made = WanVACETeacher(
        *(make_pipeline(), MODEL.tokenizer, teacher.text, teacher.negative_text, MODEL.config.teacher),
        WanSampling(steps=2),
    )
    assert torch.allclose(made.imagine(request), latents, atol=1e-5)


def test_prompts_are_embedded_as_by_the_pipeline(saved: Path, monkeypatch: pytest.MonkeyPatch):
    pipeline: Any = WanVACEPipeline.from_pretrained(saved, local_files_only=True)
    found = embed_prompts(pipeline, [" a  red\nroom ", ""])
    # A stand-in for the package that mends badly decoded text, which is not installed.
    monkeypatch.setattr(pipeline_wan_vace, "ftfy", SimpleNamespace(fix_text=str), raising=False)
    with torch.no_grad():
        expected = pipeline.encode_prompt(" a  red\nroom ", "", max_sequence_length=512, device=torch.device("cpu"))
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other[0], atol=1e-6)


def test_the_preflight_counts_its_networks(saved: Path, tmp_path: Path):
    own = needs_of_model(MODEL, 6)
    with_wan = with_teacher(own, saved, 4)
    pipeline = make_pipeline()
    for part, name in (("transformer", "transformer"), ("vae", "teacher's vae")):
        assert with_wan.weights[name] == pytest.approx(weight_bytes(getattr(pipeline, part)), rel=0.02)
    assert with_wan.weights["teacher's text_encoder"] > 0
    assert with_wan.weights["decoder"] == own.weights["decoder"]
    assert with_wan.on_device(Placement()) > with_wan.on_device(Placement(offload=True))
    assert with_teacher(own, tmp_path, 4) == own
