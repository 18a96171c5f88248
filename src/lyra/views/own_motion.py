"""What moves in front of a camera that moves: where pictures flow otherwise than the camera's own movement explains.

A flow has a part that depth does not change (the camera turned) and one along which depth moves a pixel. What flows
across that line, or along it by far more or less than its depth allows, moves by itself. A picture's pixels that this
says nothing of (what is far, smooth or near the point to which the camera goes) are told by their color.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lyra.cache.warp import unproject
from lyra.errors import MissingExtraError
from lyra.geometry.cameras import Cameras, project
from lyra.geometry.sky import MAX_DEPTH, is_sky

STEPS = (1, 2, 4, 8, 12)
"""How many pictures apart two may be that are compared."""
_PARALLAX = 3.0
"""Pixels that half of the picture shall move by its depth; the nearest pictures that do are compared."""
_FLOW_SIDE = 512
"""Pixels of the longer side at which flow is found; all lengths below are pixels of it."""
_ROUND_TRIP = 1.5
"""Distance from where a pixel comes back to, beyond which it is hidden in the other picture or was not found."""
_ACROSS = 1.5
"""Flow across the line that depth allows, beyond which a pixel moves by itself."""
_MUCH = 2.5
"""Times of the depth's own share of flow, or of one in so many, beyond which a pixel moves by itself."""
_LITTLE = 1.6
"""As ``_MUCH``, within which a pixel stands still."""
_LEAST_AREA = 4e-4
"""Share of the picture below which what moves is a speck."""
_LEAST_PIXELS = 100
"""Pixels by which a residual can be fitted, or the colors of what stands still be told."""
_ROUNDS = 4
"""Of cutting out by color."""


def load_opencv() -> Any:
    """The package, imported late.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError("opencv-python-headless", "video", "telling what moves in a video") from error
    return cv2


def find_movers(
    images: Float[Tensor, "time 3 height width"], depth: Float[Tensor, "time height width"], cameras: Cameras
) -> Bool[Tensor, "time height width"]:
    """Which pixels show something that moves by itself.

    Args:
        images: In [0, 1].
        depth: Z-depth in the cameras' unit; it may be wrong by half where something moves.
        cameras: One a picture.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    cv2 = load_opencv()
    evidence = torch.where(is_sky(depth), -1.0, weigh_flow(images, depth, cameras))
    # What moves does so for more than a moment.
    padded = torch.cat([evidence[:1], evidence, evidence[-1:]])
    evidence = (padded[:-2] + 2 * evidence + padded[2:]) / 4
    return torch.stack([cut_out(cv2, image, one) for image, one in zip(images, evidence, strict=True)])


def weigh_flow(
    images: Float[Tensor, "time 3 height width"], depth: Float[Tensor, "time height width"], cameras: Cameras
) -> Float[Tensor, "time height width"]:
    """From -1, where the flow to other pictures is the camera's own, to 1, where it cannot be; 0 where nothing is told.

    Source: Kroeger et al. 2016, dense inverse search; through OpenCV.
    """
    cv2 = load_opencv()
    count, _, height, width = images.shape
    scale = _FLOW_SIDE / max(height, width)
    size = round(height * scale), round(width * scale)
    gray = (F.interpolate(images, size=size, mode="bicubic", antialias=True).clamp(0, 1).mean(1) * 255).byte().numpy()
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    large = F.interpolate(depth.clamp(1e-3, MAX_DEPTH).log()[:, None], size=size, mode="bilinear")[:, 0].exp()
    lenses = cameras.resized(*size)
    total, pairs = torch.zeros(count, *size), torch.zeros(count, *size)
    for index in range(count):
        for other in choose_others(index, large[index], lenses):
            flow = torch.from_numpy(search.calc(gray[index], gray[other], None))
            back = torch.from_numpy(search.calc(gray[other], gray[index], None))
            said = judge_flow(flow, comes_back(flow, back), large[index], lenses[[index, other]])
            total[index] += said
            pairs[index] += said != 0
    mean = torch.where(pairs > 0, total / pairs.clamp(min=1), 0.0)
    return F.interpolate(mean[:, None], size=(height, width), mode="area")[:, 0]


def choose_others(index: int, depth: Float[Tensor, "height width"], cameras: Cameras) -> list[int]:
    """Pictures before and after one: the next, which shows what is fast, and the nearest seen from far enough aside."""
    picked = [other for other in (index - 1, index + 1) if 0 <= other < len(cameras)]
    for side in (-1, 1):
        others = [index + side * step for step in STEPS if 0 <= index + side * step < len(cameras)]
        for other in others:
            turned, moved = split_flow(depth[::8, ::8], cameras[[index, other]], every=8)
            if float((moved - turned).norm(dim=-1).median()) >= _PARALLAX or other == others[-1]:
                picked.append(other)
                break
    return sorted(set(picked))


def split_flow(
    depth: Float[Tensor, "height width"], cameras: Cameras, every: int = 1
) -> tuple[Float[Tensor, "height width 2"], Float[Tensor, "height width 2"]]:
    """Flow in pixels from a camera to another, of what is infinitely far, and of what is at its depth.

    Args:
        depth: Z-depth at every so many pixels.
        cameras: The two.
        every: Pixels from one depth to the next.
    """
    first = cameras[:1]
    coarse = first.resized(first.height // every, first.width // every) if every > 1 else first
    depth = depth[: coarse.height, : coarse.width]
    flows = []
    for far in (torch.full_like(depth, 1e6), depth):
        points = unproject(far[None], coarse).reshape(-1, 3)
        here, there = (torch.stack(project(points, camera)[:2], -1)[0] for camera in (first, cameras[1:]))
        flows.append((there - here).reshape(*depth.shape, 2))
    return flows[0], flows[1]


def comes_back(
    flow: Float[Tensor, "height width 2"], back: Float[Tensor, "height width 2"]
) -> Bool[Tensor, "height width"]:
    """Whether a pixel that flows to the other picture flows back from there to where it was."""
    height, width = flow.shape[:2]
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    place = torch.stack([u, v], -1) + flow
    grid = place / torch.tensor([width, height]) * 2 - 1
    found = F.grid_sample(back.movedim(-1, 0)[None], grid[None], align_corners=False)[0].movedim(0, -1)
    inside = (grid.abs() < 1).all(-1)
    return inside & ((flow + found).norm(dim=-1) < _ROUND_TRIP + 0.05 * flow.norm(dim=-1))


def judge_flow(
    flow: Float[Tensor, "height width 2"],
    sure: Bool[Tensor, "height width"],
    depth: Float[Tensor, "height width"],
    cameras: Cameras,
) -> Float[Tensor, "height width"]:
    """What one flow says: 1 moves, -1 stands still, 0 nothing."""
    turned, moved = split_flow(depth, cameras)
    # How a camera turned is known to a fraction of a degree, which is pixels.
    own, allowed = flow - fit_affine(flow - moved, sure) - turned, moved - turned
    length = allowed.norm(dim=-1)
    line = allowed / length.clamp(min=1e-6)[..., None]
    along = (own * line).sum(-1)
    across = (own - along[..., None] * line).norm(dim=-1)
    off_line = across > _ACROSS + 0.15 * length
    # Depth is wrong by a factor over large parts of a picture; what is of other depth than all around it moves.
    told = sure & ~off_line & (along > 0) & (length > 0.5 * _ACROSS)
    allowed_there = length * local_factor(along / length.clamp(min=1e-6), told)
    gap = (along - allowed_there).abs()
    far_off = (along > _MUCH * allowed_there) | (along < allowed_there / _MUCH)
    moves = off_line | (far_off & (gap > _ACROSS))
    near = (along < _LITTLE * allowed_there) & (along > allowed_there / _LITTLE)
    # Where depth moves a pixel by less than can be seen, nothing is known of it.
    stands = ~moves & (across < _ACROSS) & near & (length > _ACROSS)
    return (moves.float() - stands.float()) * sure


def fit_affine(
    residual: Float[Tensor, "height width 2"], known: Bool[Tensor, "height width"]
) -> Float[Tensor, "height width 2"]:
    """The affine flow that most of a residual has; by iterated least squares whose weights leave out what disagrees."""
    height, width = known.shape
    v, u = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    basis = torch.stack([torch.ones_like(u), u, v], -1)
    picks = known[::4, ::4]
    rows, values = basis[::4, ::4][picks].double(), residual[::4, ::4][picks].double()
    if len(rows) < _LEAST_PIXELS:
        return torch.zeros_like(residual)
    weights = torch.ones(len(rows), 1, dtype=torch.float64)
    fitted = torch.zeros(3, 2, dtype=torch.float64)
    for _ in range(8):
        fitted = torch.linalg.lstsq(rows * weights.sqrt(), values * weights.sqrt()).solution
        error = (values - rows @ fitted).norm(dim=-1, keepdim=True)
        weights = (1 + error.square()).reciprocal().square()
    return (basis.double() @ fitted).float()


def local_factor(
    ratio: Float[Tensor, "height width"], told: Bool[Tensor, "height width"]
) -> Float[Tensor, "height width"]:
    """Median of a ratio in a wide window around each pixel, where it is told; 1 where it nowhere is."""
    every = max(1, max(ratio.shape) // 48)
    values = torch.where(told, ratio.clamp(min=1e-3).log(), torch.nan)[None, None, ::every, ::every]
    # Wider than it is high: what is below or above has another depth.
    tall, wide = (2 * round(share * values.shape[3]) + 1 for share in (0.12, 0.3))
    padded = F.pad(values, (wide // 2, wide // 2, tall // 2, tall // 2), value=torch.nan)
    windows = padded.unfold(2, tall, 1).unfold(3, wide, 1).flatten(-2)
    middle = windows.nanmedian(-1).values.nan_to_num(0.0)
    return F.interpolate(middle, size=ratio.shape, mode="bilinear", align_corners=False)[0, 0].exp()


def cut_out(
    cv2: Any, image: Float[Tensor, "3 height width"], evidence: Float[Tensor, "height width"]
) -> Bool[Tensor, "height width"]:
    """What moves in one picture: sure pixels, and those between them of their color.

    Source: Rother et al. 2004, GrabCut; through OpenCV.
    """
    height, width = evidence.shape
    # Flow is wrong along edges of depth: lines are no things.
    firm = cv2.morphologyEx((evidence > 0.5).numpy().astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    sure = keep_large(cv2, firm > 0, _LEAST_AREA * height * width)
    if not sure.any():
        return torch.zeros(height, width, dtype=torch.bool)
    reach = max(3, round(0.02 * max(height, width)))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (4 * reach + 1, 4 * reach + 1))
    closed = cv2.morphologyEx(np.pad(sure.astype(np.uint8), 4 * reach), cv2.MORPH_CLOSE, disk)
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(closed, outlines, -1, 1, cv2.FILLED)
    around = filled[4 * reach : -4 * reach, 4 * reach : -4 * reach] > 0
    still = (evidence < -0.5).numpy()
    labels = np.where(around, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[still & ~around] = cv2.GC_BGD
    labels[sure] = cv2.GC_FGD
    if int(np.isin(labels, (cv2.GC_BGD, cv2.GC_PR_BGD)).sum()) < _LEAST_PIXELS:
        return torch.ones(height, width, dtype=torch.bool)
    levels = (image.movedim(0, -1) * 255).round().clamp(0, 255).byte().numpy()[..., ::-1].copy()
    cv2.setRNGSeed(0)
    cv2.grabCut(levels, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), _ROUNDS, cv2.GC_INIT_WITH_MASK)
    found = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    # Things of the same color elsewhere are others.
    near = cv2.dilate(around.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0
    return torch.from_numpy(keep_large(cv2, found & near, _LEAST_AREA * height * width))


def keep_large(cv2: Any, mask: Bool[np.ndarray, "height width"], least: float) -> Bool[np.ndarray, "height width"]:
    """Connected parts of at least so many pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    large = stats[:, cv2.CC_STAT_AREA] >= least
    large[0] = False
    return large[labels]
