"""Cameras of a film: whether its camera stands, turns or moves, and where it was at every picture.

What moves in front of the camera is left out: places that most pairs of pictures do not agree on.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lyra.capture.reconstruction import (
    SEED,
    Capture,
    as_capture,
    extract_features,
    load_colmap,
    quiet,
    write_pictures,
)
from lyra.capture.standing import SHIFT_SIDE, common_shift, stands, to_gray
from lyra.capture.turning import Pair, chain_turns, find_turning_focal, fit_turn
from lyra.errors import LyraError
from lyra.geometry.cameras import Cameras
from lyra.geometry.gaussians import matrix_from_quaternion, quaternion_from_matrix

FILM_SIDE = 640
"""Pixels of the longer side at which pictures of a film are compared."""
USUAL_FOV = 55.0
"""Degrees of the shorter side where nothing tells them."""
POSSIBLE_FOVS = (22.0, 100.0)
"""Of what is solved; outside the film does not tell its focal length."""
MOST_KEYS = 40
_KEY_SHIFT = 0.8
"""Pixels of ``SHIFT_SIDE`` that the camera moves at least from one key picture to the next."""
_FEATURES = 2000
_NEIGHBOURS = 8
"""Key pictures after each that it is compared with, and those twice, four times ... as far."""
_TOLERANCE = 0.0024
"""Share of the longer side within which places agree."""
_TURNS = 0.85
"""Share of what a moving camera explains that a turning one must explain."""
_LEAST_MATCHES = 40
_CELL = 16
"""Pixels of a cell in which what moves is told."""
_MOVES = 0.5
"""Share of a cell's matches that disagree with the still scene from which on it is said to move."""
_LEAST_PLACED = 0.7
"""Share of key pictures that must be placed."""
_WORST_ERROR = 1.5
"""Mean error in pixels above which cameras are a guess."""
_LEAST_ANGLE = 0.3
"""Degrees between the rays to a point."""
_TOLD = 0.98
"""Share of the error that solving for the focal length must leave, or it is not told by the film."""

CameraMotion = Literal["stands", "turns", "moves"]


@dataclass(frozen=True)
class FilmCameras:
    """Where the camera of a film was."""

    motion: CameraMotion
    cameras: Cameras | None
    """One a picture, the first the identity, in a unit of their own; None where the camera stands."""
    capture: Capture | None
    """Key pictures with the points that they share, in the same unit; None unless the camera moves."""
    keys: tuple[int, ...]
    """Pictures that were compared with each other."""
    lens_told: bool
    """Whether the film tells its focal length."""
    notes: tuple[str, ...] = ()


def find_film_cameras(
    images: Sequence[Float[Tensor, "3 height width"]], focal: float | None = None, fixed: bool = False
) -> FilmCameras:
    """Finds the cameras of successive pictures of a film.

    Args:
        images: In [0, 1], pinhole, through one lens, at the size to be compared at.
        focal: In pixels, where it is known; a start from which it is solved unless ``fixed``.
        fixed: Whether the focal length is as given.

    Raises:
        LyraError: the camera moves, and where it was cannot be found.
        MissingExtraError: it moves, and pycolmap is not installed.

    Source: Pan et al. 2024, GLOMAP; through pycolmap.
    """
    gray = to_gray(images)
    if stands(gray):
        return FilmCameras("stands", None, None, (), False)
    keys = choose_keys(gray)
    colmap = load_colmap()
    with quiet(colmap), tempfile.TemporaryDirectory() as folder:
        film = _Film(colmap, Path(folder), images, keys, focal, fixed)
        film.compare()
        turning = _try_turning(film)
        if turning is not None:
            return turning
        film.leave_out_movers()
        found, told = film.reconstruct()
    return _moving(found, keys, len(images), told, film.notes)


def choose_keys(gray: Float[Tensor, "time height width"]) -> list[int]:
    """Pictures between which the camera moved, the first and the last among them; of many, evenly many."""
    keys = [0]
    way = 0.0
    for index in range(1, len(gray)):
        way += min(common_shift(gray[index - 1], gray[index]), SHIFT_SIDE / 8)
        if way >= _KEY_SHIFT or index == len(gray) - 1:
            keys.append(index)
            way = 0.0
    if len(keys) > MOST_KEYS:
        picks = np.linspace(0, len(keys) - 1, MOST_KEYS).round().astype(int)
        keys = [keys[pick] for pick in picks]
    return keys


class _Film:
    """Key pictures in a database of COLMAP."""

    def __init__(
        self,
        colmap: Any,
        root: Path,
        images: Sequence[Tensor],
        keys: Sequence[int],
        focal: float | None,
        fixed: bool,
    ):
        self.colmap, self.root, self.keys = colmap, root, list(keys)
        self.images = [images[key] for key in keys]
        self.height, self.width = self.images[0].shape[1:]
        self.usual = focal or 0.5 * min(self.height, self.width) / math.tan(math.radians(USUAL_FOV) / 2)
        self.known, self.fixed = focal is not None, fixed
        self.tolerance = max(1.0, _TOLERANCE * max(self.height, self.width))
        self.names = [f"0/{index:05d}.png" for index in range(len(keys))]
        self.notes: list[str] = []

    def compare(self) -> None:
        colmap, names = self.colmap, self.names
        write_pictures(self.root, names, self.images)
        extract_features(colmap, self.root, names, [self.usual] * len(names), _FEATURES)
        colmap.set_random_seed(SEED)
        matching, verification = colmap.FeatureMatchingOptions(), colmap.TwoViewGeometryOptions()
        matching.num_threads = 1
        verification.ransac.random_seed = SEED
        verification.ransac.max_error = self.tolerance
        pairing = colmap.SequentialPairingOptions()
        pairing.overlap = _NEIGHBOURS
        pairing.quadratic_overlap = True
        colmap.match_sequential(self.root / "database.db", matching, pairing, verification, device=colmap.Device.cpu)
        self._read()

    def _read(self) -> None:
        with self.colmap.Database.open(self.root / "database.db") as database:
            ids = {image.name: image.image_id for image in database.read_all_images()}
            self.ids = [ids[name] for name in self.names]
            self.places = [database.read_keypoints(number)[:, :2].astype(np.float64) for number in self.ids]
            self.matches: dict[tuple[int, int], np.ndarray] = {}
            self.agreeing: dict[tuple[int, int], np.ndarray] = {}
            for first in range(len(self.ids)):
                for second in range(first + 1, len(self.ids)):
                    pair = self.ids[first], self.ids[second]
                    if database.exists_matches(*pair) and database.exists_two_view_geometry(*pair):
                        self.matches[first, second] = database.read_matches(*pair).astype(np.int64)
                        geometry = database.read_two_view_geometry(*pair)
                        self.agreeing[first, second] = geometry.inlier_matches.astype(np.int64).reshape(-1, 2)

    def pairs(self) -> list[Pair]:
        """Pairs of key pictures with enough in common."""
        center = np.array([self.width / 2, self.height / 2])
        return [
            Pair(a, b, self.places[a][found[:, 0]] - center, self.places[b][found[:, 1]] - center)
            for (a, b), found in self.agreeing.items()
            if len(found) >= _LEAST_MATCHES
        ]

    def leave_out_movers(self) -> None:
        """Takes matches out of the database that lie where most matches disagree with the still scene."""
        moving = find_movers(self.places, self.matches, self.agreeing, self.height, self.width)
        with self.colmap.Database.open(self.root / "database.db") as database:
            for (a, b), found in self.agreeing.items():
                keep = ~(moving[a][found[:, 0]] | moving[b][found[:, 1]])
                if keep.all():
                    continue
                geometry = database.read_two_view_geometry(self.ids[a], self.ids[b])
                geometry.inlier_matches = found[keep].astype(np.uint32)
                database.update_two_view_geometry(self.ids[a], self.ids[b], geometry)

    def reconstruct(self) -> tuple[Capture, bool]:
        """Cameras of the keys, and whether the film tells its focal length."""
        held = self._map(solve=False)
        solved = None if self.fixed else self._map(solve=True)
        if solved is not None and self._is_told(solved, held):
            return solved, True
        if held is None or held.error > _WORST_ERROR:
            raise LyraError(_cannot("too little in it stands still and can be found again from picture to picture"))
        share = len(held.placed) / len(self.keys)
        if share < _LEAST_PLACED:
            raise LyraError(_cannot(f"only {100 * share:.0f} % of its pictures hang together"))
        return held, self.known

    def _is_told(self, solved: Capture, held: Capture | None) -> bool:
        """Whether a focal length that was solved for is possible, and fits better than the usual one."""
        focal = float(solved.cameras.intrinsics[0, 0])
        fov = 2 * math.degrees(math.atan(0.5 * min(self.height, self.width) / focal))
        low, high = POSSIBLE_FOVS
        if not low < fov < high or solved.error > _WORST_ERROR or len(solved.placed) < _LEAST_PLACED * len(self.keys):
            return False
        if held is None or len(solved.placed) > len(held.placed):
            return True
        return len(solved.placed) == len(held.placed) and solved.error < _TOLD * held.error

    def _map(self, solve: bool) -> Capture | None:
        """All cameras at once: none is first, whose wrong beginning others would follow.

        Source: Pan et al. 2024, GLOMAP.
        """
        colmap = self.colmap
        colmap.set_random_seed(SEED)
        options = colmap.GlobalPipelineOptions()
        options.random_seed = options.mapper.random_seed = SEED
        options.num_threads = options.mapper.num_threads = 1
        mapper = options.mapper
        mapper.global_positioning.use_gpu = mapper.bundle_adjustment.ceres.use_gpu = False
        mapper.bundle_adjustment.refine_focal_length = solve
        # What is far says most of how the camera turned.
        mapper.min_tri_angle_deg = mapper.retriangulation.min_angle = _LEAST_ANGLE
        folder = tempfile.mkdtemp(dir=self.root)
        found = colmap.global_mapping(self.root / "database.db", self.root / "pictures", folder, options)
        best = max(found.values(), key=lambda model: (model.num_reg_images(), model.num_points3D()), default=None)
        if best is None or best.num_points3D() < _LEAST_MATCHES or best.num_reg_images() < 2:
            return None
        return as_capture(best, self.names, self.height, self.width)


def _cannot(reason: str) -> str:
    return (
        f"the video's camera moves, and where it was cannot be found: {reason}; give a slower or sharper video, its "
        "cameras by --cameras FILE, or --cameras still where it is to be taken as standing"
    )


def find_movers(
    places: Sequence[Float[np.ndarray, "_ 2"]],
    matches: Mapping[tuple[int, int], np.ndarray],
    agreeing: Mapping[tuple[int, int], np.ndarray],
    height: int,
    width: int,
) -> list[Bool[np.ndarray, "_"]]:
    """Which features of each picture lie where most matches disagree with what the camera's own movement explains.

    Args:
        places: u and v in pixels, of each picture.
        matches: Numbers of features of two pictures that look alike.
        agreeing: Those of them that one movement of the camera explains.
        height: In pixels.
        width: In pixels.
    """
    rows, columns = math.ceil(height / _CELL), math.ceil(width / _CELL)
    cells = [
        np.minimum((p[:, 1] // _CELL).astype(int), rows - 1) * columns
        + np.minimum((p[:, 0] // _CELL).astype(int), columns - 1)
        for p in places
    ]
    total, good = (np.zeros((len(places), rows * columns)) for _ in range(2))
    for (a, b), all_matches in matches.items():
        # Neighbours hardly move against each other: what moves is told by pictures further apart.
        if b - a < 2 and len(places) > 3:
            continue
        for column, picture in ((0, a), (1, b)):
            np.add.at(total[picture], cells[picture][all_matches[:, column]], 1)
            np.add.at(good[picture], cells[picture][agreeing[a, b][:, column]], 1)
    fields = torch.from_numpy(np.stack([total, good], 1)).reshape(len(places), 2, rows, columns)
    total_near, good_near = F.avg_pool2d(fields, 3, stride=1, padding=1, count_include_pad=False).unbind(1)
    moving = (total_near > 0.5) & (good_near < (1 - _MOVES) * total_near)
    return [moving[index].flatten().numpy()[cells[index]] for index in range(len(places))]


def _try_turning(film: _Film) -> FilmCameras | None:
    """Cameras that only turn, where these explain nearly all that cameras that move explain."""
    pairs = film.pairs()
    if not pairs:
        return None
    # What tells turning from moving are pictures far apart.
    ways = [float(np.median(np.linalg.norm(pair.b - pair.a, axis=1))) for pair in pairs]
    wide = [pair for pair, way in zip(pairs, ways, strict=True) if way >= np.quantile(ways, 0.6)]
    shorter = min(film.height, film.width)
    usual = math.degrees(2 * math.atan(0.5 * shorter / film.usual))
    focal, told = (film.usual, film.known) if film.fixed else find_turning_focal(wide, shorter, usual, film.tolerance)
    turns = [fit_turn(pair, focal, film.tolerance) for pair in wide]
    explained = sum(int(turn.inside.sum()) for turn in turns) / sum(len(pair.a) for pair in wide)
    if explained < _TURNS:
        return None
    rotations, zooms = chain_turns(pairs, len(film.keys), focal, film.tolerance)
    placed = [index for index, rotation in enumerate(rotations) if rotation is not None]
    if len(placed) < _LEAST_PLACED * len(film.keys):
        raise LyraError(_cannot("its camera turns too far from picture to picture"))
    poses = torch.eye(4, dtype=torch.float64).repeat(len(placed), 1, 1)
    poses[:, :3, :3] = torch.from_numpy(np.stack([rotations[index] for index in placed]))  # type: ignore[arg-type]
    lens = torch.tensor([focal, focal, film.width / 2, film.height / 2], dtype=torch.float32).repeat(len(placed), 1)
    lens[:, :2] *= torch.from_numpy(zooms[placed]).float()[:, None]
    cameras = Cameras(poses.float(), lens, film.height, film.width)
    notes = ["its camera turns in one place"]
    if bool((zooms != 1).any()):
        notes.append(f"it zooms, to {zooms[placed].min():.2f} to {zooms[placed].max():.2f} of its first focal length")
    keys = [film.keys[index] for index in placed]
    return FilmCameras("turns", between(cameras, keys, film.keys[-1] + 1), None, tuple(keys), told, tuple(notes))


def _moving(found: Capture, keys: Sequence[int], count: int, told: bool, notes: Sequence[str]) -> FilmCameras:
    placed = [keys[index] for index in found.placed]
    cameras = between(found.cameras, placed, count)
    origin = cameras.camera_to_world[0]
    if placed[0] != 0:
        # The first picture was not placed: the second key's frame becomes its own.
        cameras = cameras.relative_to(origin)
    text = (
        f"its camera moves: found at {len(placed)} of {count} pictures by {len(found.points)} points that stand still"
    )
    return FilmCameras("moves", cameras, found, tuple(placed), told, (text, *notes))


def between(cameras: Cameras, keys: Sequence[int], count: int) -> Cameras:
    """Cameras of all pictures from those of some: smoothly from one to the next, and held before and after them.

    Places go by Catmull-Rom splines, whose speed does not jump; rotations along the shortest arcs.

    Args:
        cameras: Of the keys.
        keys: Numbers of their pictures, ascending.
        count: Of pictures.
    """
    if list(keys) == list(range(count)):
        return cameras
    at, wanted = np.array(keys, dtype=np.float64), np.clip(np.arange(count, dtype=np.float64), keys[0], keys[-1])
    places = cameras.camera_to_world[:, :3, 3].double().numpy()
    lens = cameras.intrinsics.double().numpy()
    slopes = np.gradient(places, at, axis=0) if len(at) > 2 else np.repeat(np.diff(places, axis=0) / np.diff(at), 2, 0)
    left = np.clip(np.searchsorted(at, wanted, side="right") - 1, 0, len(at) - 2)
    gap = at[left + 1] - at[left]
    share = ((wanted - at[left]) / gap)[:, None]
    h1, h2 = 2 * share**3 - 3 * share**2 + 1, share**3 - 2 * share**2 + share
    h3, h4 = -2 * share**3 + 3 * share**2, share**3 - share**2
    moved = h1 * places[left] + h3 * places[left + 1] + gap[:, None] * (h2 * slopes[left] + h4 * slopes[left + 1])
    turns = quaternion_from_matrix(cameras.camera_to_world[:, :3, :3].double()).numpy()
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    poses[:, :3, 3] = torch.from_numpy(moved)
    poses[:, :3, :3] = matrix_from_quaternion(torch.from_numpy(_slerp(turns[left], turns[left + 1], share)))
    own = lens[left] + share * (lens[left + 1] - lens[left])
    # Where a picture was compared its camera is what was found.
    poses[list(keys)] = cameras.camera_to_world.double()
    return replace(cameras, camera_to_world=poses.float(), intrinsics=torch.from_numpy(own).float())


def _slerp(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> Float[np.ndarray, "view 4"]:
    cosine = (a * b).sum(1, keepdims=True)
    b, cosine = np.where(cosine < 0, -b, b), np.abs(cosine).clip(max=1)
    angle = np.arccos(cosine)
    near = angle < 1e-4
    sine = np.where(near, 1, np.sin(angle))
    mixed = np.where(near, 1 - share, np.sin((1 - share) * angle) / sine) * a
    mixed = mixed + np.where(near, share, np.sin(share * angle) / sine) * b
    return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
