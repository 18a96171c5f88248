"""The files lyra reads and writes: splats, moving splats, videos, images, cameras and tensors.

Every writer is atomic (nothing half-written ever has its final name) and gives the same bytes for the
same content; every reader answers a file that is not what it should be with a one-line
:class:`~lyra.errors.LyraError`.
"""

from lyra.files.atomic import sha256_file, write_atomically
from lyra.files.films import save_video
from lyra.files.images import load_image, save_image
from lyra.files.moving_splats import load_dynamic, save_4dgs, save_dynamic, save_frames
from lyra.files.poses import load_cameras, save_cameras
from lyra.files.splats import load_ply, save_ply
from lyra.files.tensors import load_tensors, save_tensors

__all__ = [
    "load_cameras",
    "load_dynamic",
    "load_image",
    "load_ply",
    "load_tensors",
    "save_4dgs",
    "save_cameras",
    "save_dynamic",
    "save_frames",
    "save_image",
    "save_ply",
    "save_tensors",
    "save_video",
    "sha256_file",
    "write_atomically",
]
