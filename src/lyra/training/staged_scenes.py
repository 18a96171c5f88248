"""Scenes as a stage reads them: whole, or cut to some frames of some clips at a smaller size."""

from collections.abc import Sequence
from dataclasses import replace
from typing import overload

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from lyra.cache.warp import DepthCache, move_cache
from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.files.clips import Clip
from lyra.geometry.cameras import invert_rigid
from lyra.synthesis.imagined import SyntheticScene
from lyra.synthesis.streaming import DataSet
from lyra.tokenizer.tokenizer import encode_frames
from lyra.training.ladders import Stage
from lyra.training.still_student import SceneSet


class DataSetScenes(Sequence[SyntheticScene]):
    """The scenes of a data set, read from its shards when they are asked for.

    In place of a damaged sample stands the next whole one of the shards' order, the same in every process.
    """

    def __init__(self, data: DataSet):
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    @overload
    def __getitem__(self, index: int) -> SyntheticScene: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[SyntheticScene]: ...
    def __getitem__(self, index: int | slice) -> SyntheticScene | Sequence[SyntheticScene]:
        """Reads a scene.

        Raises:
            LyraError: no sample is whole.
        """
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.data.first_whole(range(len(self)), index).scene


class CutScene(SceneSet):
    """One scene of some clips, whose pictures were there before they were encoded."""

    def __init__(
        self,
        scene: SyntheticScene,
        engine: Engine,
        videos: Sequence[Float[Tensor, "time 3 height width"]],
        points: DepthCache,
    ):
        super().__init__([scene], engine)
        self._videos, self._points = videos, points

    def video(self, index: int, clip: int) -> Float[Tensor, "time 3 height width"]:
        """The pictures in [0, 1]."""
        return self._videos[clip]

    def cache(self, index: int) -> DepthCache:
        """The whole scene's points, in the cut's world."""
        return self._points


def cut_scene(data: SceneSet, index: int, stage: Stage, generator: Generator) -> CutScene:
    """Some clips of a scene, some of their frames, at the stage's size and encoded anew.

    Frames begin anywhere, and the world with the first of them, but for students that correct the cache: those begin
    with the input picture.

    Raises:
        LyraError: the clips are shorter than the stage reads.
    """
    scene, engine = data.scenes[index], data.engine
    assert stage.gap is not None
    length = len(scene.clips[0].cameras)
    least, most = max(stage.gap[0], stage.frames - 1), min(stage.gap[1], length - 1)
    if least > most:
        raise LyraError(f"stage {stage.name!r} reads frames {least} apart, clips have {length}: take another ladder")
    gap = least + _draw(most - least + 1, generator)
    start = _draw(length - gap, generator) if engine.model.decoder.config.geometry == "ray" else 0
    between = torch.randperm(gap - 1, generator=generator)[: stage.frames - 2] + 1
    picks = [start, *(start + between.sort().values).tolist(), start + gap][: stage.frames]
    count = stage.trajectories[_draw(len(stage.trajectories), generator)]
    chosen = torch.randperm(len(scene.clips), generator=generator)[:count].tolist()

    origin = scene.clips[chosen[0]].cameras.camera_to_world[picks[0]]
    clips, videos = [], []
    for clip in chosen:
        frames = F.interpolate(data.video(index, clip)[picks], stage.size, mode="area")
        cameras = scene.clips[clip].cameras[picks].relative_to(origin).resized(*stage.size)
        clips.append(Clip(encode_frames(engine.tokenizer, frames).float(), cameras))
        videos.append(frames)
    views = replace(
        scene.views,
        images=F.interpolate(scene.views.images, stage.size, mode="area"),
        depth=F.interpolate(scene.views.depth[:, None], stage.size, mode="nearest-exact")[:, 0],
        cameras=scene.views.cameras.resized(*stage.size),
    )
    points = move_cache(data.cache(index), invert_rigid(origin))
    return CutScene(SyntheticScene(views, tuple(clips)), engine, videos, points)


def _draw(count: int, generator: Generator) -> int:
    return int(torch.randint(max(count, 1), (), generator=generator))
