"""Videos without a camera file: their cameras found in their pictures, in the frame of the first."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.capture.film_cameras import FilmCameras, find_film_cameras
from lyra.files.videos import Video
from lyra.geometry.cameras import Cameras, project
from lyra.views.posing import Anchors


@dataclass(frozen=True)
class PosedVideo:
    """A video with what was found of its camera."""

    video: Video
    """Its cameras are None where the camera stands."""
    anchors: Anchors | None
    """Points that stand still, one list a frame, in the cameras' unit; None unless the camera moves."""
    lens_told: bool
    """Whether the video, or its file, tells its focal length."""
    notes: tuple[str, ...]

    @classmethod
    def standing(cls, video: Video, note: str = "its camera is taken as standing") -> "PosedVideo":
        """Of a camera that is known to stand."""
        return cls(video, None, video.fov_degrees is not None, (note,))


def pose_video(
    video: Video, fov: float | None = None, larger: Float[Tensor, "time 3 tall wide"] | None = None
) -> PosedVideo:
    """Finds the cameras of a video.

    Args:
        video: Without cameras, at the model's size.
        fov: Degrees of the shorter side, where the user says so.
        larger: The same frames, as large as they are to be compared; the video's own when None.

    Raises:
        LyraError: the camera moves, and where it was cannot be found.
        MissingExtraError: it moves, and pycolmap is not installed.
    """
    images = video.frames if larger is None else larger
    known = fov if fov is not None else video.fov_degrees
    focal = None if known is None else 0.5 * min(images.shape[2:]) / math.tan(math.radians(known) / 2)
    found = find_film_cameras(list(images), focal, fixed=fov is not None)
    if found.cameras is None:
        return PosedVideo.standing(video, "its camera stands: it was measured")
    cameras = found.cameras.resized(*video.frames.shape[2:])
    anchors = None if found.capture is None else _spread_anchors(found, cameras)
    return PosedVideo(replace(video, cameras=cameras), anchors, found.lens_told, found.notes)


def _spread_anchors(found: FilmCameras, cameras: Cameras) -> Anchors:
    """Where the points lie in every frame: in one that was not compared, those that the two keys around it share."""
    assert found.capture is not None
    seen, keys = found.capture.seen, list(found.keys)
    u, v, z = project(found.capture.points, cameras)
    places, depths = [], []
    for frame in range(len(cameras)):
        after = min((row for row, key in enumerate(keys) if key >= frame), default=len(keys) - 1)
        before = after if keys[after] == frame else max(0, after - 1)
        inside = (u[frame] >= 0) & (u[frame] < cameras.width) & (v[frame] >= 0) & (v[frame] < cameras.height)
        known = seen[before] & seen[after] & inside & (z[frame] > 0)
        places.append(torch.stack([u[frame], v[frame]], -1)[known])
        depths.append(z[frame][known])
    return Anchors(tuple(places), tuple(depths))
