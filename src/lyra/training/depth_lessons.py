"""The depth network learns real rooms: from exact depth of maps and rooms, and from a weak teacher's labels.

Every step takes pictures of several pools, brings them to one shape, changes their colors as cameras do, and compares
size, edges and normals of what the network says with what is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from lyra.depth import DepthNet
from lyra.depth.geometry import align_log_depth, edge_error, normal_error, size_error
from lyra.device.memory import autocast_training
from lyra.geometry.trajectories import noise_generator
from lyra.training.depth_pictures import DepthPictures, decode_depth

SHAPES = ((192, 256), (160, 224), (224, 288), (224, 160), (192, 192), (160, 256))
"""Heights and widths that steps are taken at, multiples of 32."""


@dataclass(frozen=True)
class LessonConfig:
    """What the loss is made of."""

    batch: int = 6
    seed: int = 0
    shapes: tuple[tuple[int, int], ...] = SHAPES
    size_weight: float = 3.0
    edge_weight: float = 1.0
    normal_weight: float = 1.0
    sky_weight: float = 0.3
    weak_weight: float = 1.0
    """Of the size error by a weak teacher's labels."""


@dataclass(frozen=True)
class Pool:
    """Pictures of one kind."""

    pictures: DepthPictures
    share: float
    """Of the pictures in a step; shares need not add up to 1."""
    weak: bool = False
    """Whether the depth is a teacher's guess: then nothing is learned of edges, normals and sky."""


@dataclass(frozen=True)
class Lesson:
    """Pictures of one step."""

    image: Float[Tensor, "batch 3 height width"]
    depth: Float[Tensor, "batch height width"]
    """Infinite is sky."""
    focal: Float[Tensor, "batch"]
    """Pixels; 0 where unknown."""
    center: Float[Tensor, "batch 2"]
    exact: Bool[Tensor, "batch"]


def lesson_loss(
    network: DepthNet, pools: Sequence[Pool], config: LessonConfig, step: int
) -> tuple[Tensor, dict[str, float]]:
    """Loss of a step's pictures; the network's device does the work."""
    generator = noise_generator(config.seed, f"depth lesson/{step}")
    lesson = draw_lesson(pools, config, generator)
    device = next(network.parameters()).device
    image = lesson.image.to(device).contiguous(memory_format=torch.channels_last)
    with autocast_training(device):
        output = network(image)
    return compare(output.float(), lesson, config)


def compare(
    output: Float[Tensor, "batch 2 height width"], lesson: Lesson, config: LessonConfig
) -> tuple[Tensor, dict[str, float]]:
    """Loss of log depth and sky as the network gives them."""
    device = output.device
    log_depth, sky = output.unbind(1)
    depth, exact = lesson.depth.to(device), lesson.exact.to(device)
    known = depth.isfinite()
    truth = torch.where(known, depth, 1.0).log()
    residual = align_log_depth(log_depth, truth, known)
    sure, guess = known & exact[:, None, None], known & ~exact[:, None, None]
    size, edges = size_error(residual, sure), edge_error(residual, truth, sure)
    zero = output.new_zeros(())
    lens = (exact & (lesson.focal.to(device) > 0)).nonzero()[:, 0]
    normals, weak, sky_error = zero, zero, zero
    if len(lens):
        focal, center = lesson.focal.to(device)[lens], lesson.center.to(device)[lens]
        normals = normal_error(log_depth[lens], truth[lens], known[lens], focal, center)
    if bool(guess.any()):
        # A blurred label says nothing about pixels: only means of cells are compared.
        cells, share = (F.avg_pool2d(x[:, None], 8)[:, 0] for x in (residual * guess, guess.float()))
        weak = size_error(cells, share > 0.9)
    if bool(exact.any()):
        sky_error = F.binary_cross_entropy_with_logits(sky[exact], (~known[exact]).float())
    loss = config.size_weight * size + config.edge_weight * edges + config.normal_weight * normals
    loss = loss + config.sky_weight * sky_error + config.weak_weight * weak
    details = {"size": size, "edges": edges, "normals": normals, "sky": sky_error, "weak": weak}
    return loss, {name: value.item() for name, value in details.items()}


def draw_lesson(pools: Sequence[Pool], config: LessonConfig, generator: Generator) -> Lesson:
    """Pictures of the pools by their shares, cropped to one shape, mirrored and changed in color at random."""
    height, width = config.shapes[int(torch.randint(len(config.shapes), (), generator=generator))]
    shares = torch.tensor([float(pool.share) for pool in pools])
    images, depths, focals, centers, exact = [], [], [], [], []
    for which in torch.multinomial(shares, config.batch, replacement=True, generator=generator).tolist():
        pictures = pools[which].pictures
        index = int(torch.randint(len(pictures), (), generator=generator))
        image, depth, focal, center = crop(pictures, index, height, width, generator)
        images.append(recolor(image, generator))
        depths.append(depth)
        focals.append(focal)
        centers.append(center)
        exact.append(not pools[which].weak)
    return Lesson(
        torch.stack(images), torch.stack(depths), torch.stack(focals), torch.stack(centers), torch.tensor(exact)
    )


def crop(
    pictures: DepthPictures, index: int, height: int, width: int, generator: Generator
) -> tuple[Float[Tensor, "3 height width"], Float[Tensor, "height width"], Float[Tensor, ""], Float[Tensor, "2"]]:
    """A window of a picture at another size, maybe mirrored: image in [0, 1], depth, focal length, principal point.

    Inverse depth is interpolated, which keeps planes plane; between two things the nearest pixel counts.
    """
    image, code = pictures.images[index].float() / 255, pictures.depth[index]
    full_height, full_width = code.shape
    draw = torch.rand(4, generator=generator).tolist()
    zoom = 1.0 + 0.45 * draw[0] ** 2
    factor = min(full_height / height, full_width / width) / zoom
    rows, columns = min(round(height * factor), full_height), min(round(width * factor), full_width)
    top, left = round((full_height - rows) * draw[1]), round((full_width - columns) * draw[2])
    window = (slice(top, top + rows), slice(left, left + columns))
    image = F.interpolate(
        image[None, :, *window], size=(height, width), mode="bilinear", antialias=True, align_corners=False
    )[0]
    inverse = (1 / decode_depth(code[window]))[None, None]
    soft = F.interpolate(inverse, size=(height, width), mode="bilinear", align_corners=False)[0, 0]
    hard = F.interpolate(inverse, size=(height, width), mode="nearest-exact")[0, 0]
    broken = F.interpolate(_breaks(inverse), size=(height, width), mode="bilinear", align_corners=False)[0, 0] > 0
    inverse = torch.where(broken, hard, soft)
    center = torch.tensor([(full_width / 2 - left) * width / columns, (full_height / 2 - top) * height / rows])
    focal = pictures.focal[index] * (width / columns)
    if draw[3] < 0.5:
        image, inverse = image.flip(-1), inverse.flip(-1)
        center[0] = width - center[0]
    return image, 1 / inverse, focal, center


def _breaks(inverse: Tensor) -> Tensor:
    """1 where inverse depth is not nearly affine across and down: at edges between things."""
    bent = torch.zeros_like(inverse)
    for axis in (-2, -1):
        count = inverse.shape[axis]
        low, middle, high = (inverse.narrow(axis, start, count - 2) for start in range(3))
        wrong = ((low + high - 2 * middle).abs() > 0.05 * middle).float()
        for start in range(3):
            part = bent.narrow(axis, start, count - 2)
            part.copy_(torch.maximum(part, wrong))
    return bent


def recolor(image: Float[Tensor, "3 height width"], generator: Generator) -> Float[Tensor, "3 height width"]:
    """Exposure, tint, gamma, saturation, vignette, blur or coarseness, and noise, as cameras and light differ."""
    draw = torch.rand(16, generator=generator).tolist()

    def between(index: int, low: float, high: float) -> float:
        return low + (high - low) * draw[index]

    height, width = image.shape[1:]
    if draw[0] < 0.4:  # coarse or out of focus
        small = (int(height * between(1, 0.35, 1.0)), int(width * between(1, 0.35, 1.0)))
        image = F.interpolate(image[None], size=small, mode="bilinear", antialias=True, align_corners=False)
        image = F.interpolate(image, size=(height, width), mode="bicubic", align_corners=False)[0]
    image = image.clamp(1e-4, 1) ** between(2, 0.55, 1.7)
    tint = 1 + (torch.rand(3, 1, 1, generator=generator) - 0.5) * between(3, 0.0, 0.6)
    gray = image.mean(0, keepdim=True)
    image = gray + (image - gray) * (between(4, 0.0, 1.5) if draw[5] < 0.85 else 0.0)
    image = (image * tint - 0.4) * between(6, 0.6, 1.5) + 0.4 + between(7, -0.15, 0.2)
    if draw[8] < 0.3:
        y, x = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
        image = image * (1 - between(9, 0.0, 0.5) * (x * x + y * y) / 2)
    image = image + between(10, 0.0, 0.04) * torch.randn(image.shape, generator=generator)
    return image.clamp(0, 1)
