"""What every method is asked: new views of a scene from one picture, compared with the true ones.

All methods share one predicted depth, brought to the truth's scale by the ratio of the input views' median depths.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lyra.cache.warp import build_cache, render_cache
from lyra.errors import LyraError, MissingExtraError
from lyra.evaluation.judge import PerceptualDistance
from lyra.evaluation.metrics import psnr, ssim
from lyra.geometry.cameras import Cameras, look_up, pixel_rays, project, z_depth_factor
from lyra.geometry.sky import MAX_DEPTH, is_sky
from lyra.training.lpips_distance import LpipsDistance

VISIBLE_TOLERANCE = 0.03
"""A point of a new view is visible in the input where their depths there differ by less than this share."""


@dataclass(frozen=True)
class TrueViews:
    """New views of a scene."""

    color: Float[Tensor, "view 3 height width"]
    cameras: Cameras
    visible: Bool[Tensor, "view height width"]
    """Seen in the input view too; the rest are holes."""
    given: Float[Tensor, "3 height width"] | None = None
    """The input picture."""


def visible_from(
    input_depth: Float[Tensor, "height width"],
    input_camera: Cameras,
    depth: Float[Tensor, "view height width"],
    cameras: Cameras,
) -> Bool[Tensor, "view height width"]:
    """Which pixels of new views the input view sees, by true z-depth of both."""
    origins, directions = pixel_rays(cameras)
    world = origins + directions * (depth * z_depth_factor(cameras))[..., None]
    u, v, z = (values.reshape(depth.shape) for values in project(world.reshape(-1, 3), input_camera))
    inside, pixel = look_up(u, v, z, *input_depth.shape)
    return inside & ((input_depth[pixel] - z).abs() < VISIBLE_TOLERANCE * z)


def repeat_input(image: Float[Tensor, "3 height width"], cameras: Cameras) -> Float[Tensor, "view 3 height width"]:
    """The input picture again and again."""
    return image.expand(len(cameras), -1, -1, -1)


def warp_input(
    image: Float[Tensor, "3 height width"],
    depth: Float[Tensor, "height width"],
    input_camera: Cameras,
    cameras: Cameras,
) -> tuple[Float[Tensor, "view 3 height width"], Bool[Tensor, "view height width"]]:
    """The picture's pixels moved by a depth map, and where they land."""
    cache = build_cache(image[None] * 2 - 1, depth[None], input_camera, None)
    views = render_cache(cache, cameras)
    return views.images[:, 0] / 2 + 0.5, views.masks[:, 0] > 0


def fill_with_mean(
    images: Float[Tensor, "view 3 height width"], covered: Bool[Tensor, "view height width"]
) -> Float[Tensor, "view 3 height width"]:
    """Holes take the mean color of what is covered in their view."""
    weight = covered[:, None].float()
    mean = (images * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp(min=1)
    return torch.where(covered[:, None], images, mean)


def fill_with_nearest(
    images: Float[Tensor, "view 3 height width"], covered: Bool[Tensor, "view height width"]
) -> Float[Tensor, "view 3 height width"]:
    """Holes take the color of the nearest covered pixel."""
    filled = images.clone()
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in covered.shape[1:]), indexing="ij")
    places = torch.stack([rows, columns], -1).float()
    for index, mask in enumerate(covered):
        if not bool(mask.any()) or bool(mask.all()):
            continue
        # The nearest covered pixel has a hole beside it: between it and the hole another would be nearer.
        beside = mask & (F.max_pool2d((~mask)[None].float(), 3, 1, 1)[0] > 0)
        known = places[beside]
        nearest = torch.cat([torch.cdist(part, known).argmin(1) for part in places[~mask].split(2048)])
        filled[index][:, ~mask] = images[index][:, beside][:, nearest]
    return filled


def baselines(
    image: Float[Tensor, "3 height width"],
    depth: Float[Tensor, "height width"],
    input_camera: Cameras,
    cameras: Cameras,
) -> dict[str, Float[Tensor, "view 3 height width"]]:
    """What needs no generative model: the cache with its holes filled in two ways, a plane, the input repeated."""
    warped, covered = warp_input(image, depth, input_camera, cameras)
    solid = depth[~is_sky(depth)]
    plane = torch.full_like(depth, solid.median().item() if len(solid) else MAX_DEPTH)
    flat, flat_covered = warp_input(image, plane, input_camera, cameras)
    return {
        "cache": fill_with_mean(warped, covered),
        "cache-nearest": fill_with_nearest(warped, covered),
        "plane": fill_with_nearest(flat, flat_covered),
        "repeat": repeat_input(image, cameras),
    }


Values = dict[str, dict[str, list[list[float]]]]
"""By method and by metric, a list a scene: one number a view, or one for the whole scene."""


class Scores:
    """Every method's errors over scenes and views."""

    def __init__(self, judge: PerceptualDistance | None, lpips: LpipsDistance | None = None):
        """Takes who judges: the row ``lpips`` is there only with LPIPS' own weights."""
        self.judge = judge
        self.lpips = lpips
        self.values: Values = {}

    def add(self, truth: TrueViews, methods: Mapping[str, Float[Tensor, "view 3 height width"]]) -> None:
        """Measures every method on one scene's views.

        Raises:
            LyraError: a method has not as many frames as the truth: a missing frame is no black one.
        """
        visible = truth.visible[:, None]
        perceptual = _judge(self.judge, truth.color, methods)
        lpips = _judge(self.lpips, truth.color, methods)
        for method, color in methods.items():
            if len(color) != len(truth.color):
                raise LyraError(f"method {method!r} shows {len(color)} of {len(truth.color)} frames: make the rest")
            error = (color.clamp(0, 1) - truth.color).square()
            row = self.values.setdefault(method, {})
            measured = {
                "psnr": [psnr(a, b) for a, b in zip(color, truth.color, strict=True)],
                "ssim": [ssim(a.clamp(0, 1), b) for a, b in zip(color, truth.color, strict=True)],
                "perceptual": perceptual[method],
                # Holes differ much in size: their errors are summed over a scene before the logarithm.
                "psnr_visible": _masked_psnr(error, visible),
                "psnr_holes": _masked_psnr(error, ~visible),
            }
            if self.lpips is not None:
                measured["lpips"] = lpips[method]
            for name, numbers in measured.items():
                row.setdefault(name, []).append(numbers)

    def rows(self) -> list[dict[str, str | float | None]]:
        """Means over views, and over scenes for the masked ones."""
        return mean_rows(self.values)


def find_scores() -> Scores:
    """With the judges that are installed."""
    try:
        judge = PerceptualDistance()
    except MissingExtraError:
        judge = None
    return Scores(judge, LpipsDistance.find())


def _judge(
    judge: PerceptualDistance | LpipsDistance | None, truth: Tensor, methods: Mapping[str, Tensor]
) -> dict[str, list[float]]:
    """View by view, so that the truth is looked at once and memory stays small."""
    found: dict[str, list[float]] = {method: [] for method in methods}
    for index in range(len(truth) if judge else 0):
        assert judge is not None
        features = judge.features(truth[index : index + 1])
        for method, color in methods.items():
            found[method].append(judge.distance(color[index : index + 1], features).item())
    return found


def mean_rows(values: Values) -> list[dict[str, str | float | None]]:
    """One row a method: its name and the means; None where there is nothing to measure."""

    def mean(scenes: list[list[float]]) -> float | None:
        numbers = [number for scene in scenes for number in scene]
        return sum(numbers) / len(numbers) if numbers else None

    return [{"method": method} | {name: mean(v) for name, v in row.items()} for method, row in values.items()]


def _masked_psnr(error: Tensor, mask: Tensor) -> list[float]:
    picked = error[mask.expand_as(error)]
    return [-10 * picked.mean().clamp(min=1e-10).log10().item()] if len(picked) else []
