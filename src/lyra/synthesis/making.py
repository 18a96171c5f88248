"""One sample made from its source: what a worker does, wherever it is."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.files import sha256_file, write_atomically
from lyra.files.photos import Photo, load_photo
from lyra.files.published_clips import DECODING_ORDER, load_published_clips
from lyra.files.videos import Video, load_video
from lyra.geometry.cameras import concatenate_cameras
from lyra.geometry.trajectories import TRAJECTORY_NAMES
from lyra.synthesis.choices import SynthesisOptions
from lyra.synthesis.clip_depth import depth_of_clip
from lyra.synthesis.imagined import SyntheticScene, imagine_scene
from lyra.synthesis.planning import Maker, Planned, clip_ids, provenance
from lyra.synthesis.samples import BACKWARD, Sample, encode_sample
from lyra.synthesis.shards import pack_files
from lyra.synthesis.sources import Source
from lyra.views.drawn import Drawing, draw_prompt
from lyra.views.posed_video import PosedVideo
from lyra.views.still import find_pose_unit
from lyra.views.views import Views
from lyra.worlds import INPUT_FOV
from lyra.worlds.input_views import render_input_view
from lyra.worlds.moving_clips import render_source_video

WORK = "work"
"""Folder of what is not in a shard yet."""


def piece_of(folder: Path, sample: str) -> Path:
    """File of a finished sample before its shard is full."""
    return folder / WORK / f"{sample}.piece"


def make_sample(engine: Engine, planned: Planned, maker: Maker, options: SynthesisOptions, folder: Path) -> float:
    """Imagines one input's clips and writes them as a piece of a shard; clips of an earlier attempt are kept.

    Returns:
        Seconds that it took.

    Raises:
        WritingError: the disk is full, or the folder cannot be written to.
        LyraError: the input will not do.
    """
    began, source = time.monotonic(), planned.source
    shelf = folder / WORK / planned.id
    with looking(engine, source, planned.seed):
        if source.kind == "clips":
            scene, names = _read_published(engine, source)
        else:
            views = see(engine, source)
            scene = imagine_scene(engine, views, planned.seed, options.trajectories, options.movement, shelf)
            names = [*(["input"] if views.motion else []), *options.trajectories]
            names += [f"{name}{BACKWARD}" for name in options.trajectories] if scene.backward else []
        if options.depth:
            scene = with_depth(engine, scene)
    ids = clip_ids(source, maker, options, names)
    notes = provenance(planned, maker, options)
    sample = Sample(planned.id, source.content, planned.split, source.caption, scene, ids, notes)
    with write_atomically(piece_of(folder, planned.id)) as path:
        path.write_bytes(pack_files(planned.id, encode_sample(sample)))
    shutil.rmtree(shelf, ignore_errors=True)
    return time.monotonic() - began


@contextmanager
def looking(engine: Engine, source: Source, seed: int) -> Iterator[None]:
    """Has the picture of a prompt's exact depth known inside the block."""
    usual = engine.depth
    if source.kind == "prompt":
        height, width = engine.config.height, engine.config.width
        engine.depth = draw_prompt(source.place, seed, height, width, engine.estimator)
    try:
        yield
    finally:
        engine.depth = usual


def see(engine: Engine, source: Source) -> Views:
    """What is known of an input: read, drawn or rendered, at the teacher's size.

    Raises:
        LyraError: the file is no longer what it was, or will not do.
    """
    config = engine.config
    size = (config.height, config.width)
    match source.kind:
        case "photo":
            photo = load_photo(Path(source.place), *size)
            if photo.sha256 != source.content:
                raise LyraError(f"{source.place} has changed since the run began: put it back, or begin anew")
            return engine.views([photo])[0]
        case "video":
            cameras = None if source.cameras is None else Path(source.cameras)
            video = load_video(Path(source.place), *size, config.frames, cameras)
            if video.sha256 != source.content or (cameras and sha256_file(cameras) != source.posed):
                raise LyraError(f"{source.place} has changed since the run began: put it back, or begin anew")
            return engine.views(video)[0]
        case "prompt":
            drawing = engine.estimator
            assert isinstance(drawing, Drawing), "inside of looking()"
            return engine.views([Photo.of((drawing.image * 255).round() / 255)])[0]
        case "moving_world":
            clip = render_source_video(int(source.place), config.frames, *size)
            video = Video.of(clip.video.float() / 255, (config.frames - 1) / config.fps)
            return engine.views(PosedVideo.standing(video), fov=INPUT_FOV)[0]
        case _:
            image = render_input_view(int(source.place), *size).float() / 255
            return engine.views([Photo.of(image)], fov=INPUT_FOV)[0]


def with_depth(engine: Engine, scene: SyntheticScene) -> SyntheticScene:
    """The scene with the depth of every clip; of a video's own clip it is the input's."""
    turned = scene.views.reversed() if scene.backward else scene.views
    forward = [depth_of_clip(engine, clip, scene.views) for clip in scene.clips]
    backward = [depth_of_clip(engine, clip, turned) for clip in scene.backward]
    return replace(scene, depth=tuple(forward), backward_depth=tuple(backward))


def _read_published(engine: Engine, source: Source) -> tuple[SyntheticScene, list[str]]:
    """A sample of the published data set: nothing is imagined; its unit becomes the input's depth.

    Its pickles are opened by a reader that builds arrays alone; see ``lyra.files.published_clips``.
    """
    root, name = Path(source.place).parent, Path(source.place).name
    present = [view for view in DECODING_ORDER if (root / str(view)).is_dir()]
    clips = load_published_clips(root, name, allow_pickle=True, views=present)
    channels = engine.tokenizer.spec.channels
    if len(clips[0].latents) != channels:
        raise LyraError(f"{root} has latents of {len(clips[0].latents)} channels, the model {channels}: give its own")
    start = clips[0].cameras.camera_to_world[0]
    cameras = [clip.cameras.relative_to(start) for clip in clips]
    films = [engine.frames(clip) for clip in clips]
    views, _ = engine.views([Photo.of(films[0][0])], cameras[0][:1])
    # Half-way and at the end, since one trajectory ends where it began.
    looked = [(view, at) for view in range(len(clips)) for at in (len(films[0]) // 2, len(films[0]) - 1)]
    pictures = torch.stack([films[view][at] for view, at in looked])
    unit = find_pose_unit(views, pictures, concatenate_cameras([cameras[view][at : at + 1] for view, at in looked]))
    scaled = []
    for clip, path in zip(clips, cameras, strict=True):
        poses = path.camera_to_world.clone()
        poses[:, :3, 3] *= unit
        scaled.append(replace(clip, cameras=replace(path, camera_to_world=poses)))
    return SyntheticScene(views, tuple(scaled)), [TRAJECTORY_NAMES[view] for view in present]
