"""Stored clips to a scene: our own folders and the published data set's, and what is refused."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import lyra
from lyra.cli import main as cli
from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.files import load_ply, save_tensors
from lyra.files.clips import Clip, save_clip
from lyra.files.published_clips import DECODING_ORDER, load_published_clips
from lyra.generate.stored_clips import DecodeOptions, decode_folder, load_stored
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.trajectories import TRAJECTORY_NAMES, trajectory_cameras
from lyra.models.loading import load, save
from lyra.models.model import Model
from lyra.student import DecoderConfig, GaussianDecoder, decode_scene, prepare_student_inputs
from lyra.student.inputs import encode_time, frame_times
from lyra.tokenizer.linear import LinearTokenizer

SIZE = (16, 32)
FRAMES = 9


def make_model(dynamic: bool = False) -> Model:
    """A model of the paper's form, tiny, whose tokenizer compresses as the published one."""
    torch.manual_seed(0)
    tokenizer = LinearTokenizer(16, 8, 8, 2)
    for basis in (tokenizer.first_basis, tokenizer.later_basis):
        basis.copy_(torch.linalg.qr(torch.randn(basis.shape))[0])
    config = DecoderConfig(width=32, depth=2, attention_every=2, heads=2, state=8, time_conditioning=dynamic)
    decoder = GaussianDecoder(config).eval()
    for name, parameter in decoder.named_parameters():
        if "time_embed.proj.weight" in name:
            torch.nn.init.normal_(parameter)
    return replace(lyra.load("smoke"), tokenizer=tokenizer.eval(), decoder=decoder)


def make_clip(name, seed: int) -> Clip:
    generator = torch.Generator().manual_seed(seed)
    cameras = trajectory_cameras(name, 0.3, FRAMES, intrinsics_from_fov(55.0, *SIZE), *SIZE)
    return Clip(0.5 * torch.randn(16, 2, SIZE[0] // 8, SIZE[1] // 8, generator=generator), cameras)


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [make_clip(name, seed) for seed, name in enumerate(TRAJECTORY_NAMES)]


def save_data_set(root: Path, clips: list[Clip], sample: str = "00001") -> None:
    """The published layout, in folders by the trajectories' numbers."""
    for index, clip in enumerate(clips):
        folder = root / str(index)
        for name in ("latent", "pose", "intrinsics"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        array = clip.latents[None].numpy()
        torch.save(array, folder / "latent" / f"{sample}.pkl")
        order = np.random.default_rng(0).permutation(FRAMES)
        pose, intrinsics = clip.cameras.camera_to_world.numpy(), clip.cameras.intrinsics.numpy()
        np.savez(folder / "pose" / f"{sample}.npz", data=pose[order], inds=order)
        np.savez(folder / "intrinsics" / f"{sample}.npz", data=intrinsics[order], inds=order)


def save_own(folder: Path, clips: list[Clip]) -> None:
    for name, clip in zip(TRAJECTORY_NAMES, clips, strict=True):
        save_clip(clip, folder / name / "clip.safetensors")
    (folder / "run.json").write_text(json.dumps({"options": {"trajectories": TRAJECTORY_NAMES}}))


def test_a_published_sample_becomes_a_scene(tmp_path: Path, clips):
    save_data_set(tmp_path / "data", clips)
    model = make_model()
    scene = decode_folder(Engine(model, "cpu"), tmp_path / "data", tmp_path / "out", DecodeOptions(allow_pickle=True))
    # The published decoder's own order.
    ordered = [clips[view] for view in DECODING_ORDER]
    inputs = prepare_student_inputs(ordered, model.tokenizer, model.decoder.config)
    expected = decode_scene(model.decoder, inputs)
    assert torch.equal(scene.gaussians.means, expected.means)
    assert len(scene.gaussians) == round(0.2 * 6 * FRAMES * SIZE[0] * SIZE[1] / 64)
    written = load_ply(tmp_path / "out/scene.ply")
    assert torch.allclose(written.means, expected.means, atol=1e-4)
    again = lyra.Scene.load(tmp_path / "out")
    assert again.provenance["clips"]["names"] == [f"00001/{i}" for i in range(6)]
    assert torch.equal(again.input_camera.camera_to_world[0], torch.eye(4))


def test_published_latents_and_cameras_are_read_as_they_were_written(tmp_path: Path, clips):
    save_data_set(tmp_path, clips)
    loaded = load_published_clips(tmp_path, "00001", allow_pickle=True, views=(0, 3))
    for ours, truth in zip(loaded, (clips[0], clips[3]), strict=True):
        assert torch.equal(ours.latents, truth.latents)
        assert torch.equal(ours.cameras.camera_to_world, truth.cameras.camera_to_world)
        assert torch.equal(ours.cameras.intrinsics, truth.cameras.intrinsics)
        assert (ours.cameras.height, ours.cameras.width) == SIZE


def test_pickles_are_read_only_when_asked_for(tmp_path: Path, clips):
    save_data_set(tmp_path / "data", clips)
    with pytest.raises(LyraError, match="--allow-pickle"):
        decode_folder(Engine(make_model(), "cpu"), tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Surprise:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize(
    "content",
    [
        Surprise(),
        {"latents": Surprise()},
        np.array([Surprise(), 1], dtype=object),
        np.zeros((1, 16, 2, 2), np.float32),
        np.zeros((1, 16, 2, 2, 4), np.int32),
        np.full((1, 16, 2, 2, 4), np.nan, np.float32),
        [1, 2],
    ],
)
def test_what_is_no_array_of_latents_is_refused_and_not_run(
    tmp_path: Path, clips, content, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    save_data_set(tmp_path, clips)
    for write in (lambda path: torch.save(content, path), lambda path: path.write_bytes(pickle.dumps(content))):
        write(tmp_path / "0/latent/00001.pkl")
        with pytest.raises(LyraError, match=r"00001\.pkl"):
            load_published_clips(tmp_path, "00001", allow_pickle=True)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "2/pose/00001.npz").unlink(), "does not exist"),
        (lambda root: (root / "2/pose/00001.npz").write_bytes(b"PK"), "damaged"),
        (lambda root: np.savez(root / "2/pose/00001.npz", data=np.zeros((9, 3, 3)), inds=np.arange(9)), "published"),
        (lambda root: np.savez(root / "2/pose/00001.npz", data=np.zeros((3, 4, 4)), inds=np.arange(3)), "3 poses"),
        (lambda root: np.savez(root / "2/pose/00001.npz", data=np.full((9, 4, 4), np.nan), inds=np.arange(9)), "NaN"),
        (lambda root: np.savez(root / "2/pose/00001.npz", poses=np.zeros((9, 4, 4))), "damaged"),
    ],
)
def test_a_damaged_sample_is_named(tmp_path: Path, clips, damage, message: str):
    save_data_set(tmp_path, clips)
    damage(tmp_path)
    with pytest.raises(LyraError, match=message):
        load_published_clips(tmp_path, "00001", allow_pickle=True)


def test_an_unknown_sample_lists_the_known_ones(tmp_path: Path, clips):
    save_data_set(tmp_path, clips, "00007")
    with pytest.raises(LyraError, match="00007"):
        load_stored(tmp_path, DecodeOptions(sample="x", allow_pickle=True))


def test_own_clips_are_decoded_in_the_order_of_their_run(tmp_path: Path, clips):
    save_own(tmp_path / "scene/clips", clips)
    model = make_model()
    expected = decode_scene(model.decoder, prepare_student_inputs(clips, model.tokenizer, model.decoder.config))
    for source, out in ((tmp_path / "scene", "a"), (tmp_path / "scene/clips", "b")):
        scene = decode_folder(Engine(model, "cpu"), source, tmp_path / out)
        assert torch.equal(scene.gaussians.means, expected.means)
    assert (tmp_path / "a/scene.ply").read_bytes() == (tmp_path / "b/scene.ply").read_bytes()
    names = list(TRAJECTORY_NAMES)[::-1]
    (tmp_path / "scene/clips/run.json").write_text(json.dumps({"options": {"trajectories": names}}))
    assert load_stored(tmp_path / "scene", DecodeOptions()).names == names


def test_a_decoder_of_cache_geometry_takes_the_stored_depth(tmp_path: Path):
    model = lyra.load("smoke")
    teacher, channels = model.config.teacher, model.tokenizer.spec.channels
    size = (teacher.height, teacher.width)
    latents = torch.randn(channels, 2, size[0] // 4, size[1] // 4)
    lens = intrinsics_from_fov(55.0, *size)
    clip = Clip(latents, trajectory_cameras("left", 0.3, teacher.frames, lens, *size))
    save_clip(clip, tmp_path / "clips/left/clip.safetensors")
    with pytest.raises(LyraError, match=r"no input\.safetensors"):
        decode_folder(Engine(model, "cpu"), tmp_path / "clips", tmp_path / "out")
    view = {"image": torch.rand(3, *size), "depth": torch.rand(*size) + 1, "intrinsics": lens}
    save_tensors(view, tmp_path / "clips/input.safetensors")
    assert len(decode_folder(Engine(model, "cpu"), tmp_path / "clips", tmp_path / "out").gaussians) > 0


def test_a_dynamic_decoder_shows_the_wanted_time(tmp_path: Path, clips):
    save_own(tmp_path / "clips", clips)
    model = make_model(dynamic=True)
    early, late, again = (
        decode_folder(Engine(model, "cpu"), tmp_path / "clips", tmp_path / name, DecodeOptions(time=time)).gaussians
        for name, time in (("a", 0.0), ("b", 1.0), ("c", 1.0))
    )
    assert torch.equal(late.means, again.means)
    assert (early.opacities - late.opacities).abs().max() > 1e-3
    with pytest.raises(LyraError, match="static"):
        decode_folder(Engine(make_model(), "cpu"), tmp_path / "clips", tmp_path / "d", DecodeOptions(time=0.5))
    with pytest.raises(LyraError, match="time of 2"):
        DecodeOptions(time=2.0)


def test_times_reach_the_decoder_as_videos_through_the_tokenizer(clips):
    model = make_model(dynamic=True)
    times = prepare_student_inputs(clips, model.tokenizer, model.decoder.config, times=[0.25]).times
    assert times is not None
    assert times.shape == (1, 16, 3, 2, 4)
    source = (encode_time(frame_times(FRAMES)) * 2 - 1).T[None, :, :, None, None].repeat(1, 1, 1, *SIZE)
    assert torch.allclose(times[:, :, :2], model.tokenizer.encode(source), atol=1e-5)
    moment = torch.tensor([0.25, np.cos(0.25), np.sin(0.25)]).float() * 2 - 1
    target = moment[None, :, None, None, None].repeat(1, 1, 1, *SIZE)
    assert torch.allclose(times[:, :, 2:], model.tokenizer.encode(target), atol=1e-5)


def test_clips_of_another_tokenizer_or_of_two_sizes_are_refused(tmp_path: Path, clips):
    save_own(tmp_path / "clips", clips)
    with pytest.raises(LyraError, match="not of the tokenizer"):
        decode_folder(Engine(lyra.load("smoke"), "cpu"), tmp_path / "clips", tmp_path / "out")
    short = Clip(clips[0].latents[:, :1], clips[0].cameras[:1])
    save_clip(short, tmp_path / "clips/left/clip.safetensors")
    with pytest.raises(LyraError, match="differ in length"):
        decode_folder(Engine(make_model(), "cpu"), tmp_path / "clips", tmp_path / "out")
    odd = Cameras(clips[0].cameras.camera_to_world, clips[0].cameras.intrinsics, 24, 24)
    save_clip(Clip(torch.zeros(16, 2, 3, 3), odd), tmp_path / "odd/left/clip.safetensors")
    with pytest.raises(LyraError, match="do not divide"):
        decode_folder(Engine(make_model(), "cpu"), tmp_path / "odd", tmp_path / "out")


def test_a_taken_folder_and_an_empty_source_are_refused(tmp_path: Path, clips):
    save_own(tmp_path / "clips", clips)
    with pytest.raises(LyraError, match="not empty"):
        decode_folder(Engine(make_model(), "cpu"), tmp_path / "clips", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LyraError, match="holds no clips"):
        decode_folder(Engine(make_model(), "cpu"), tmp_path / "empty", tmp_path / "out")
    with pytest.raises(LyraError, match="no folder"):
        decode_folder(Engine(make_model(), "cpu"), tmp_path / "nothere", tmp_path / "out")


def test_the_command_line_decodes_with_two_parts_of_a_model(tmp_path: Path, clips, monkeypatch: pytest.MonkeyPatch):
    save_data_set(tmp_path / "data", clips)
    save(make_model(), tmp_path / "whole")
    save(load(tmp_path / "whole", parts=["vae", "decoder"]), tmp_path / "model")
    arguments = ["lyra", "decode", "data", "-o", "out", "--model", "model", "--allow-pickle", "--sample", "00001"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", arguments)
    cli.main()
    assert lyra.Scene.load(tmp_path / "out").provenance["model"]["name"] == "smoke"
