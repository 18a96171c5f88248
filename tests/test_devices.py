"""Every part on a device against the same on the CPU: on the CPU itself, where the ways differ, and on a GPU."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import overfit
import pytest
import torch
from small_cosmos import small_cosmos
from torch import Tensor, nn

from lyra.device.memory import DeviceOptions, Placement, find_device, find_memory, plan
from lyra.engine.engine import Engine
from lyra.engine.paths import preset_path
from lyra.files.photos import Photo
from lyra.geometry.dynamic import DynamicGaussians
from lyra.geometry.gaussians import Gaussians
from lyra.geometry.trajectories import TrajectoryName
from lyra.models.model import Model
from lyra.models.preflight import needs_of_model
from lyra.models.smoke import build_smoke_model
from lyra.rendering import render
from lyra.teacher import DiffusionTeacher, TeacherRequest
from lyra.tokenizer.tiling import HostedTokenizer
from lyra.training.depth import DepthObjective
from lyra.training.still_student import DecoderObjective, decoder_loss

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
_CLIPS: tuple[TrajectoryName, ...] = ("left", "zoom_in")
ATOL = {"cpu": 1e-5, "cuda": 3e-3}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    return request.param


@pytest.fixture(scope="module")
def photo() -> Tensor:
    return overfit.still_set()[1].scenes[0].views.images[0]


def make_model() -> Model:
    """The smoke model, its teacher's answers not zero."""
    model = build_smoke_model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.transformer.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def place_of(module: nn.Module) -> str:
    return next(module.parameters()).device.type


@pytest.mark.parametrize("offload", [False, True])
def test_a_hosted_tokenizer_answers_on_the_cpu(device: str, offload: bool):
    tokenizer = small_cosmos()
    video = torch.rand(1, 3, 9, 32, 32) * 2 - 1
    with torch.no_grad():
        latents = tokenizer.encode(video)
        frames = tokenizer.decode(latents)
        normal = tokenizer.normalize(latents)
    hosted = HostedTokenizer(tokenizer, Placement(device, offload=offload))
    for ours, expected in (
        (hosted.encode(video), latents),
        (hosted.decode(latents), frames),
        (hosted.normalize(latents), normal),
        (hosted.denormalize(normal), latents),
    ):
        assert ours.device.type == "cpu"
        assert (ours - expected).abs().max() < ATOL[device] * max(1.0, float(expected.abs().max()))
    assert place_of(tokenizer) == ("cpu" if offload else device)


def request_of(photo: Tensor, model: Model, name: TrajectoryName) -> TeacherRequest:
    views, _ = Engine(model, "cpu").views([Photo.of(photo)], fov=55.0)
    config = model.config.teacher
    path = preset_path(name, 0.2, config.frames, config.height, config.width)
    return TeacherRequest(photo * 2 - 1, views.cache(config.edges, config.warp), path.cameras, 3, name)


def test_a_teacher_imagines_the_same_clips(device: str, photo: Tensor):
    model = make_model()
    requests = [request_of(photo, model, name) for name in _CLIPS]

    def teacher(placement: Placement) -> DiffusionTeacher:
        text = model.text["empty"], model.text["negative"]
        return DiffusionTeacher(
            model.transformer, model.tokenizer, model.scheduler, *text, model.config.teacher, placement
        )

    expected = torch.stack([teacher(Placement()).imagine(request) for request in requests])
    ours = teacher(Placement(device, offload=True, batch=2)).imagine_batch(requests)
    assert ours.device.type == "cpu" and ours.dtype == torch.float32
    assert expected.std() > 0.1
    assert (ours - expected).abs().max() < ATOL[device] * float(expected.abs().max())
    assert place_of(model.transformer) == "cpu"


def test_a_plan_for_this_machine_fits_it(device: str):
    model = make_model()
    available, needs = find_memory(device), needs_of_model(model, 6)
    placement = plan(needs, available, DeviceOptions(device), 6)
    assert placement.device == find_device(device)
    if device == "cuda":
        assert needs.on_device(placement) <= available.device_free <= available.device_total


def test_an_engine_makes_the_same_still_scene_and_gives_the_model_back(device: str, photo: Tensor):
    model = make_model()
    scenes = []
    for where in ("cpu", device):
        with Engine(model, placement=Placement(where)) as engine:
            views, _ = engine.views([Photo.of(photo)], fov=55.0)
            paths = [preset_path("left", 0.2, engine.config.frames, *photo.shape[1:])]
            chunks = engine.imagine(views, paths, 0, quiet=True)
            scenes.append(engine.decode(chunks, views))
        for module in (model.transformer, model.depth, model.decoder):
            assert place_of(module) == "cpu"
    expected, ours = scenes
    assert isinstance(ours, Gaussians) and isinstance(expected, Gaussians)
    camera = overfit.Cameras(torch.eye(4)[None], overfit.LENS[None], *photo.shape[1:])
    pictures = [render(scene.to("cpu"), camera).color for scene in (ours, expected)]
    assert overfit.psnr(*pictures) > 45 or torch.equal(*pictures)


@pytest.mark.parametrize("moving", [False, True])
def test_a_student_computes_in_the_placements_precision_and_geometry_in_float32(moving: bool):
    model, data = overfit.moving_set() if moving else overfit.still_set()
    scene, found, seen = data.scenes[0], [], set()
    block = model.decoder.blocks[0]
    hook = block.get_submodule("in_proj").register_forward_hook(lambda *given: seen.add(given[-1].dtype))
    for precision in ("float32", "bfloat16"):
        seen.clear()
        with Engine(model, placement=Placement(precision=precision)) as engine:
            found.append(engine.decode([list(scene.clips)], scene.views))
        assert seen == {getattr(torch, precision)}
    hook.remove()
    exact, rounded = (d.moment(3) if isinstance(d, DynamicGaussians) else d for d in found)
    assert all(tensor.dtype == torch.float32 for tensor in rounded.tensors().values())
    assert not torch.equal(exact.means, rounded.means)
    pictures = [render(part, scene.views.cameras[:1]).color for part in (exact, rounded)]
    assert overfit.psnr(*pictures) > 35


def test_an_engine_makes_the_same_moments(device: str):
    model, data = overfit.moving_set()
    scene, found = data.scenes[0], []
    for where in ("cpu", device):
        copied = copy.deepcopy(model.decoder)
        with Engine(overfit.replace(model, decoder=copied), placement=Placement(where)) as engine:
            found.append(engine.decode([list(scene.clips)], scene.views))
    expected, ours = found
    assert isinstance(ours, DynamicGaussians) and isinstance(expected, DynamicGaussians)
    for index in (0, 3):
        pictures = [render(d.moment(index).to("cpu"), scene.views.cameras[:1]).color for d in (ours, expected)]
        assert overfit.psnr(*pictures) > 45 or torch.equal(*pictures)


def test_a_student_learns_where_it_is(device: str):
    """The gradient of a step there is the CPU's, as far as bfloat16 goes."""
    if device == "cuda":
        pytest.importorskip("gsplat", reason="gsplat is not installed")
    model, data = overfit.still_set()
    goal, gradients = DecoderObjective(sizes=(1,), views=(2,), targets=2), []
    for where in ("cpu", device):
        decoder = copy.deepcopy(model.decoder).to(where)
        decoder.zero_grad()
        loss, _ = decoder_loss(decoder, data, goal, 0)
        loss.backward()
        assert loss.device.type == where
        bias = decoder.head.bias
        assert bias is not None and bias.grad is not None
        gradients.append(bias.grad.cpu())
    assert gradients[0].norm() > 0
    assert torch.cosine_similarity(*gradients, dim=0) > 0.98


def test_a_depth_network_learns_where_it_is(device: str):
    network = overfit.create_model(overfit.SMOKE).depth.to(device)
    frames = overfit.depth_frames()
    overfit.depth_loss(network, frames, DepthObjective(batch=2), 0)[0].backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.device.type == device and bool(gradient.isfinite().all()) for gradient in gradients)


RANKS = """
import torch
import torch.distributed as dist
from lyra.device.ranks import join_ranks
ranks = join_ranks()
device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
total = torch.ones(1, device=device) * (ranks.rank + 1)
dist.all_reduce(total)
ranks.wait()
assert int(total) == ranks.world * (ranks.world + 1) // 2
dist.destroy_process_group()
"""


def test_ranks_meet_on_their_devices(device: str, tmp_path: Path):
    processes = max(2, torch.cuda.device_count()) if device == "cuda" else 2
    if device == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("one CUDA GPU: NCCL takes one process a GPU")
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **hidden}
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
