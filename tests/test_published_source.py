"""Clips that others have imagined become samples: the published data set's layout as a source."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lyra.depth import DepthPrediction
from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.trajectories import TrajectoryName, trajectory_cameras
from lyra.models.model import Model
from lyra.models.recipe import SMOKE, create_model
from lyra.synthesis.choices import SynthesisOptions
from lyra.synthesis.production import produce
from lyra.synthesis.sources import find_inputs
from lyra.synthesis.streaming import DataSet
from lyra.tokenizer.linear import LinearTokenizer, fit_linear_tokenizer
from lyra.tokenizer.tokenizer import LatentSpec, encode_frames
from lyra.worlds import render_world, sample_world

SIZE, FRAMES, UNIT = 64, 9, 2.5
"""One unit of the published poses in scene units of the input is ``1 / UNIT``."""


@dataclass
class FirstDepth:
    """Knows the first picture's depth, and takes every other picture for it."""

    depth: Tensor

    def predict(self, image: Tensor) -> DepthPrediction:
        return DepthPrediction(self.depth, torch.ones_like(self.depth, dtype=torch.bool), None, metric=False)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model, Tensor, dict[str, Cameras]]:
    """A sample of two trajectories of a world, of which the latents are all that is known."""
    root = tmp_path_factory.mktemp("published")
    lens = intrinsics_from_fov(55.0, SIZE, SIZE)
    world = sample_world(110_003)
    _, [first] = render_world(world, Cameras(torch.eye(4)[None], lens[None], SIZE, SIZE))
    median = first.median()
    model = create_model(
        replace(
            SMOKE,
            teacher=replace(SMOKE.teacher, frames=FRAMES, height=SIZE, width=SIZE),
            latent=LatentSpec(channels=48, temporal=8, spatial=8),
        )
    )
    films, paths = {}, {}
    names: tuple[tuple[int, TrajectoryName], ...] = ((0, "left"), (4, "zoom_in"))
    for number, name in names:
        cameras = trajectory_cameras(name, 0.4, FRAMES, lens, SIZE, SIZE)
        moved = cameras.camera_to_world.clone()
        moved[:, :3, 3] *= median
        films[number], _ = render_world(world, replace(cameras, camera_to_world=moved))
        paths[name] = cameras
        published = cameras.camera_to_world.clone()
        published[:, :3, 3] *= UNIT
        for part in ("latent", "pose", "intrinsics"):
            (root / str(number) / part).mkdir(parents=True)
        order = np.random.default_rng(number).permutation(FRAMES)
        np.savez(root / str(number) / "pose/0007.npz", data=published.numpy()[order], inds=order)
        np.savez(root / str(number) / "intrinsics/0007.npz", data=cameras.intrinsics.numpy()[order], inds=order)
    assert isinstance(model.tokenizer, LinearTokenizer)
    fit_linear_tokenizer([film.movedim(0, 1)[None] * 2 - 1 for film in films.values()], model.tokenizer)
    for number, film in films.items():
        latents = encode_frames(model.tokenizer, film)[None].float().numpy()
        torch.save(latents, root / str(number) / "latent/0007.pkl")
    return root, model, first, paths


def test_a_published_sample_becomes_one_in_scene_units(published, tmp_path: Path):
    root, model, first, paths = published
    with pytest.raises(LyraError, match=r"are Python pickles: if you trust .* give --allow-pickle"):
        find_inputs(str(root))
    sources = find_inputs(str(root), allow_pickle=True)
    engine = Engine(model, "cpu", depth=FirstDepth(first))
    assert produce(engine, sources, tmp_path / "set", SynthesisOptions(held_out=0.0)).complete
    sample = DataSet(tmp_path / "set")[0]
    assert sample.provenance["source"]["kind"] == "clips" and list(sample.clips) == ["left", "zoom_in"]
    for clip, path in zip(sample.scene.clips, paths.values(), strict=True):
        found, wanted = clip.cameras.centers[-1], path.centers[-1]
        assert torch.nn.functional.cosine_similarity(found, wanted, dim=0) > 0.999
        assert float(found.norm() / wanted.norm()) == pytest.approx(1, abs=0.15)
        assert torch.equal(clip.cameras.intrinsics, path.intrinsics)
    assert [tuple(depth.shape) for depth in sample.scene.depth] == [(FRAMES, SIZE, SIZE)] * 2


def test_moving_published_sets_and_other_latents_are_refused(published, tmp_path: Path):
    root, _, first, _ = published
    smoke = create_model(SMOKE)
    made = produce(
        Engine(smoke, "cpu", depth=FirstDepth(first)), find_inputs(str(root), allow_pickle=True), tmp_path / "set"
    )
    assert made.quarantined == 1
    assert "latents of 48 channels, the model 16" in (tmp_path / "set/quarantine.jsonl").read_text()
    (tmp_path / "0/latent").mkdir(parents=True)
    (tmp_path / "6").mkdir()
    with pytest.raises(LyraError, match="published set of moving scenes, whose input videos it lacks"):
        find_inputs(str(tmp_path), allow_pickle=True)
