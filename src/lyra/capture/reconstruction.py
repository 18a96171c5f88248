"""Cameras of pictures that have none, and some points that they show: structure from motion by COLMAP.

The same pictures give the same cameras: every random draw has a seed, and what depends on order runs in one thread.
"""

import contextlib
import math
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from lyra.errors import MissingExtraError
from lyra.geometry.cameras import Cameras

POSING_SIDE = 1024
"""Pixels of the longer side at which pictures are compared: more takes longer and places nothing better."""
_FEATURES = 8192
"""Most of a photo."""
_KNOWN_FOCAL = 4
"""Pictures below which a focal length that is known is not solved for."""
_LEAST_POINTS = 24
"""Of a reconstruction; a handful of points is a coincidence of pictures that look alike."""
SEED = 0
"""Of every random draw."""


@dataclass(frozen=True)
class Capture:
    """Cameras that pictures were taken with, in a unit of their own."""

    placed: tuple[int, ...]
    """Which of the given pictures have a camera, ascending."""
    cameras: Cameras
    """Of these pictures; the first is the identity."""
    points: Float[Tensor, "point 3"]
    """Places that at least two of them show, in the cameras' world."""
    seen: Bool[Tensor, "view point"]
    """Which picture shows which."""
    error: float
    """Mean distance in pixels between where points are found and where the cameras see them."""


def find_cameras(
    images: Sequence[Float[Tensor, "3 height width"]],
    lenses: Sequence[int] | None = None,
    focals: Sequence[float | None] | None = None,
    fixed: bool = False,
) -> Capture | None:
    """Poses pictures by what they have in common.

    Args:
        images: In [0, 1], all of one size, pinhole, at the size to be compared at.
        lenses: A number a picture; those with the same one are of one lens. All are when None.
        focals: In pixels, where one is known; it is only a start where there are enough pictures to solve it.
        fixed: Whether focal lengths are as given, however many pictures there are.

    Returns:
        Cameras of the largest part of the pictures that hangs together; None where no two do, or nothing moved.

    Raises:
        MissingExtraError: pycolmap is not installed.

    Source: Schoenberger and Frahm 2016, COLMAP; through pycolmap.
    """
    colmap = load_colmap()
    count = len(images)
    lenses = [0] * count if lenses is None else lenses
    known = [None] * count if focals is None else focals
    with quiet(colmap), tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = [f"{lens}/{index:05d}.png" for index, lens in enumerate(lenses)]
        write_pictures(root, names, images)
        extract_features(colmap, root, names, known)
        _match(colmap, root / "database.db")
        keep = fixed or (count < _KNOWN_FOCAL and None not in known)
        options = mapping_options(colmap, keep)
        found = colmap.incremental_mapping(root / "database.db", root / "pictures", root / "models", options)
        best = max(found.values(), key=lambda model: (model.num_reg_images(), model.num_points3D()), default=None)
        if best is None or best.num_points3D() < _LEAST_POINTS:
            return None
        return as_capture(best, names, *images[0].shape[1:])


def load_colmap() -> Any:
    """The package, imported late.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pycolmap
    except ImportError as error:
        raise MissingExtraError("pycolmap", "poses", "finding the cameras of pictures") from error
    # Its log library prints a stack when a process is told to end; it shall just end, as it would without.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    return pycolmap


def require_colmap() -> None:
    """Says at once that the cameras of pictures cannot be found.

    Raises:
        MissingExtraError: pycolmap is not installed.
    """
    load_colmap()


@contextlib.contextmanager
def quiet(colmap: Any) -> Iterator[None]:
    """What COLMAP tells of its steps is not for users; what goes wrong is told by what it returns."""
    level, threshold = colmap.logging.minloglevel, colmap.logging.stderrthreshold
    colmap.logging.minloglevel = colmap.logging.stderrthreshold = 3
    try:
        yield
    finally:
        colmap.logging.minloglevel, colmap.logging.stderrthreshold = level, threshold


def write_pictures(root: Path, names: Sequence[str], images: Sequence[Tensor]) -> None:
    """Writes pictures under their names into the folder that COLMAP reads."""
    for index, name in enumerate(names):
        path = root / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        levels = (images[index] * 255).round().clamp(0, 255).to(torch.uint8).movedim(0, -1)
        Image.fromarray(levels.numpy()).save(path, compress_level=1)


def extract_features(
    colmap: Any, root: Path, names: Sequence[str], focals: Sequence[float | None], most: int = _FEATURES
) -> None:
    """Features of all pictures, one lens after another: each has a focal length of its own to begin with."""
    colmap.Database.open(root / "database.db").close()
    order = sorted(range(len(names)), key=lambda index: (names[index].split("/")[0], index))
    for _, group in groupby(order, key=lambda index: names[index].split("/")[0]):
        members = list(group)
        known = [focal for index in members if (focal := focals[index]) is not None]
        reader = colmap.ImageReaderOptions()
        reader.camera_model = "SIMPLE_PINHOLE"
        if known:
            with Image.open(root / "pictures" / names[members[0]]) as picture:
                width, height = picture.size
            reader.camera_params = f"{float(np.median(known))},{width / 2},{height / 2}"
        # First all names, since the order in which threads end is nobody's, then what is in the pictures.
        colmap.import_images(
            root / "database.db",
            root / "pictures",
            camera_mode=colmap.CameraMode.PER_FOLDER,
            image_names=[names[index] for index in members],
            options=reader,
        )
    reader = colmap.ImageReaderOptions()
    reader.camera_model = "SIMPLE_PINHOLE"
    features = colmap.FeatureExtractionOptions()
    features.sift.max_num_features = most
    colmap.extract_features(
        root / "database.db",
        root / "pictures",
        image_names=list(names),
        camera_mode=colmap.CameraMode.PER_FOLDER,
        reader_options=reader,
        extraction_options=features,
        device=colmap.Device.cpu,
    )


def _match(colmap: Any, database: Path) -> None:
    colmap.set_random_seed(SEED)
    matching, verification = colmap.FeatureMatchingOptions(), colmap.TwoViewGeometryOptions()
    matching.num_threads = 1
    verification.ransac.random_seed = SEED
    pairing = colmap.ExhaustivePairingOptions()
    colmap.match_exhaustive(database, matching, pairing, verification, device=colmap.Device.cpu)


def mapping_options(colmap: Any, keep_focal: bool) -> Any:
    """How pictures are put together: with less evidence than COLMAP asks for, since here they are few."""
    colmap.set_random_seed(SEED)
    options = colmap.IncrementalPipelineOptions()
    options.num_threads = 1
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = SEED
    options.min_model_size = 2
    options.max_num_models = 4
    options.min_num_matches = 10
    options.mapper.init_min_num_inliers = 30
    options.mapper.init_min_tri_angle = 3.0
    options.mapper.abs_pose_min_num_inliers = 12
    options.ba_refine_focal_length = not keep_focal
    options.mapper.abs_pose_refine_focal_length = not keep_focal
    options.extract_colors = False
    return options


def as_capture(model: Any, names: Sequence[str], height: int, width: int) -> Capture:
    """A reconstruction in the frame of its first picture, whose median depth is 1."""
    pictures = {image.name: image for image in model.images.values() if image.has_pose}
    placed = [index for index, name in enumerate(names) if name in pictures]
    order = {identifier: row for row, identifier in enumerate(sorted(model.points3D))}
    poses, lenses = np.tile(np.eye(4), (len(placed), 1, 1)), np.empty((len(placed), 4))
    seen = torch.zeros(len(placed), len(order), dtype=torch.bool)
    for row, index in enumerate(placed):
        picture = pictures[names[index]]
        poses[row, :3] = picture.cam_from_world().inverse().matrix()
        focal, *center = model.cameras[picture.camera_id].params
        lenses[row] = [focal, focal, *center]
        shown = [order[spot.point3D_id] for spot in picture.points2D if spot.has_point3D()]
        seen[row, shown] = True
    places = np.array([model.points3D[identifier].xyz for identifier in order]).reshape(-1, 3)
    # In double precision: the unit of a reconstruction, and where it lies, are anything.
    first = np.linalg.inv(poses[0])
    unit = max(1e-12, float(np.median((places @ first[:3, :3].T + first[:3, 3])[seen[0].numpy(), 2], axis=0)))
    relative = first @ poses
    relative[0] = np.eye(4)
    relative[:, :3, 3] /= unit
    cameras = Cameras(
        torch.from_numpy(relative.astype(np.float32)), torch.from_numpy(lenses.astype(np.float32)), height, width
    )
    points = torch.from_numpy(((places @ first[:3, :3].T + first[:3, 3]) / unit).astype(np.float32))
    return Capture(tuple(placed), cameras, points, seen, float(model.compute_mean_reprojection_error()))


def posing_size(width: int, height: int) -> tuple[int, int]:
    """Height and width at which a picture of some size is compared with others."""
    scale = min(1.0, POSING_SIDE / max(width, height))
    return max(1, math.floor(height * scale)), max(1, math.floor(width * scale))
