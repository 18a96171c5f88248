"""What a feed-forward student saves: Gaussians that are optimized on the teacher's frames, scene by scene.

Source: Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering" (2023), without its density
control: the points of the cache, and of what the clips' ends show beside it, are all there from the start.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lyra.cache.warp import FAR_BIAS, DepthCache, fill_holes, render_cache, unproject
from lyra.evaluation.metrics import structural_similarity
from lyra.geometry.cameras import Cameras, concatenate_cameras
from lyra.geometry.gaussians import Gaussians, merge
from lyra.geometry.trajectories import noise_generator
from lyra.rendering import render


@dataclass(frozen=True)
class Optimization:
    """How long, and how fast each part learns; the paper's rates, but the faster ones of so few steps."""

    steps: int = 300
    views: int = 2
    """Frames a step."""
    means: float = 1e-3
    """Scene units a step."""
    scales: float = 5e-3
    """Of their logarithm."""
    quaternions: float = 1e-3
    opacities: float = 2.5e-2
    """Of their logit."""
    colors: float = 1e-2
    similarity: float = 0.2
    """Weight of 1 - SSIM beside the mean absolute difference."""
    seed: int = 0


def start_gaussians(
    cache: DepthCache,
    depth: Float[Tensor, "height width"],
    camera: Cameras,
    clips: Sequence[tuple[Cameras, Float[Tensor, "3 height width"]]],
) -> Gaussians:
    """A Gaussian for each point of the input picture, and for each pixel of other views where none of those lands.

    Args:
        cache: Points of the input picture.
        depth: Its z-depth.
        camera: Its camera.
        clips: The last camera of every clip and the teacher's frame there; its depth is that of what lies far around.
    """
    parts = [_lift(cache.colors[0] / 2 + 0.5, depth, camera, torch.ones_like(depth, dtype=torch.bool))]
    for end, frame in clips:
        seen = render_cache(cache, end)
        mask, known = seen.masks[:, 0], seen.depth[:, 0]
        weights = known.clamp(min=1e-3) ** FAR_BIAS
        filled = fill_holes((known * mask)[:, None], mask, weights)[0, 0].clamp(min=1e-2)
        parts.append(_lift(frame, filled, end, mask[0] == 0))
    return merge(parts)


def _lift(
    image: Float[Tensor, "3 height width"],
    depth: Float[Tensor, "height width"],
    camera: Cameras,
    mask: Bool[Tensor, "height width"],
) -> Gaussians:
    """Round Gaussians of half a pixel."""
    means = unproject(depth[None], camera)[0][mask]
    radius = 0.5 * depth[mask] / camera.intrinsics[0, 0]
    upright = means.new_tensor([1.0, 0.0, 0.0, 0.0]).expand(len(means), 4)
    opacities = torch.full_like(radius, 0.8)
    return Gaussians(means, radius[:, None].expand(-1, 3), upright, opacities, image[:, mask].mT.clamp(0, 1))


def optimize_gaussians(
    start: Gaussians,
    frames: Float[Tensor, "view 3 height width"],
    cameras: Cameras,
    options: Optimization = Optimization(),
) -> tuple[Gaussians, list[float]]:
    """Gaussians that show some frames better than those they start from, and the loss of every step.

    Args:
        start: None is added or taken away.
        frames: In [0, 1].
        cameras: Of the frames.
        options: How long and fast.
    """
    parts = {
        "means": start.means,
        "scales": start.scales.log(),
        "quaternions": start.quaternions,
        "opacities": start.opacities.clamp(1e-4, 1 - 1e-4).logit(),
        "colors": start.colors,
    }
    learned = {name: part.detach().clone().requires_grad_() for name, part in parts.items()}
    groups = [{"params": [part], "lr": getattr(options, name)} for name, part in learned.items()]
    optimizer = torch.optim.Adam(groups, eps=1e-15)
    generator, losses = noise_generator(options.seed, "optimization"), []
    with torch.enable_grad():
        for _ in range(options.steps):
            picks = torch.randperm(len(frames), generator=generator)[: options.views].tolist()
            shown = render(_activate(learned), cameras[picks]).color
            loss = _compare(shown, frames[picks], options.similarity)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return _activate(learned).detach(), losses


def _activate(learned: dict[str, Tensor]) -> Gaussians:
    return Gaussians(
        means=learned["means"],
        scales=learned["scales"].exp(),
        quaternions=torch.nn.functional.normalize(learned["quaternions"], dim=-1),
        opacities=learned["opacities"].sigmoid(),
        colors=learned["colors"].clamp(0, 1),
    )


def _compare(shown: Tensor, truth: Tensor, similarity: float) -> Tensor:
    unlike = torch.stack([1 - structural_similarity(a, b) for a, b in zip(shown, truth, strict=True)]).mean()
    return (1 - similarity) * (shown - truth).abs().mean() + similarity * unlike


def optimize_clips(
    cache: DepthCache,
    depth: Float[Tensor, "height width"],
    camera: Cameras,
    paths: Sequence[Cameras],
    films: Sequence[Float[Tensor, "time 3 height width"]],
    options: Optimization,
) -> Gaussians:
    """A scene of the teacher's clips: started from the cache and fitted to all frames.

    Args:
        cache: Points of the input picture.
        depth: Its z-depth.
        camera: Its camera.
        paths: Of every clip.
        films: The teacher's frames of every clip.
        options: How long and fast.
    """
    ends = [(path[-1:], film[-1]) for path, film in zip(paths, films, strict=True)]
    start = start_gaussians(cache, depth, camera, ends)
    return optimize_gaussians(start, torch.cat(list(films)), concatenate_cameras(list(paths)), options)[0]
