"""EDM preconditioning and the teacher's samplers, as plain functions.

Notation: ``network`` is the raw F(c_in x, c_noise); ``denoise`` maps (x, sigma) to an estimate of the clean x0.

All samplers treat the known first frame alike: at every noise level above ``AUGMENT_SIGMA`` it is replaced by the known
one with a little fixed noise, and its denoised estimate by the known one. Levels below leave it to the network.

Source: ``DiffusionGen3CModel.generate_samples_from_batch``; golden ``gen3c_sampler`` (Euler, the published one).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Latents = Float[Tensor, "batch channel time height width"]
Network = Callable[[Latents, Float[Tensor, "batch"]], Latents]
Denoise = Callable[[Latents, Float[Tensor, "batch"]], Latents]

SIGMA_DATA = 0.5
AUGMENT_SIGMA = 0.001
"""Noise level given to the known first frame."""


@runtime_checkable
class Scheduler(Protocol):
    """Of diffusers' ``EDMEulerScheduler`` what is used; the import of diffusers takes seconds."""

    sigmas: Float[Tensor, "steps_plus_one"]
    """Noise levels."""

    @property
    def set_timesteps(self) -> Callable[..., None]:
        """Makes the noise levels of so many steps."""
        ...


def schedule_sigmas(scheduler: Scheduler, steps: int) -> Float[Tensor, "steps_plus_one"]:
    """Noise levels of a Karras schedule in descending order, 0 appended.

    GEN3C uses sigma 80 to 0.0002 and rho 7. (diffusers' converter for Cosmos writes other end points.)
    """
    scheduler.set_timesteps(steps)
    return scheduler.sigmas.clone()


def precondition(network: Network, sigma_data: float = SIGMA_DATA) -> Denoise:
    """EDM preconditioning: a raw network as a denoiser.

    Source: Karras et al. 2022, table 1; network time is ln(sigma) / 4.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        total = level**2 + sigma_data**2
        output = network(x / total.sqrt(), 0.25 * sigma.log())
        return x * sigma_data**2 / total + output * sigma_data * level / total.sqrt()

    return denoise


def guide(conditional: Network, unconditional: Network, guidance: float) -> Network:
    """Classifier-free guidance ``Fc + g (Fc - Fu)``; g = 1, GEN3C's setting, means two passes.

    A guidance of 0 needs one pass only and returns ``conditional`` itself.
    """
    if guidance == 0:
        return conditional

    def network(x: Tensor, time: Tensor) -> Tensor:
        with_condition = conditional(x, time)
        return with_condition + guidance * (with_condition - unconditional(x, time))

    return network


@dataclass(frozen=True)
class KnownFrame:
    """The first latent frame, which is given."""

    first_frame: Latents
    """Normalized latents; only the first latent frame is read."""
    augment_noise: Latents
    """Unit normal, the same at every step and for every clip."""

    def mask(self, sigma: Float[Tensor, ""]) -> Latents:
        """1 at the first frame while it is imposed, else 0."""
        known = torch.zeros_like(self.first_frame)
        if sigma > AUGMENT_SIGMA:
            known[:, :, 0] = 1
        return known

    def impose(self, x: Latents, sigma: Float[Tensor, ""]) -> Latents:
        """A state with the known frame in it, at the state's noise level."""
        # The known frame carries noise of AUGMENT_SIGMA, scaled so that c_in of the current level brings it to the
        # network as c_in of its own level would.
        rescale = ((sigma**2 + SIGMA_DATA**2) / (AUGMENT_SIGMA**2 + SIGMA_DATA**2)).sqrt()
        mask = self.mask(sigma)
        return mask * (self.first_frame + AUGMENT_SIGMA * self.augment_noise) * rescale + (1 - mask) * x

    def estimate(self, denoise: Denoise, x: Latents, sigma: Float[Tensor, ""]) -> Latents:
        """The clean estimate of an imposed state, with the known frame in it."""
        mask = self.mask(sigma)
        return mask * self.first_frame + (1 - mask) * denoise(x, sigma.expand(len(x)))


def sample_euler(
    denoise: Denoise,
    noise: Latents,
    sigmas: Float[Tensor, "steps_plus_one"],
    first_frame: Latents,
    augment_noise: Latents,
    on_step: Callable[[int, Latents], None] | None = None,
) -> Latents:
    """Draws latents whose first latent frame is known, as published: Euler steps, one denoising each.

    Args:
        denoise: Preconditioned (and guided) network.
        noise: Unit normal.
        sigmas: From ``schedule_sigmas``.
        first_frame: Normalized latents; only the first latent frame is read.
        augment_noise: Unit normal, the same at every step and for every clip.
        on_step: Called with the step's index and the state after it.
    """
    known = KnownFrame(first_frame, augment_noise)
    x = noise * (sigmas[0] ** 2 + 1).sqrt()
    for step in range(len(sigmas) - 1):
        sigma, next_sigma = sigmas[step], sigmas[step + 1]
        x = known.impose(x, sigma)
        estimate = known.estimate(denoise, x, sigma)
        x = x + (next_sigma - sigma) * (x - estimate) / sigma
        if on_step is not None:
            on_step(step, x)
    return x


def sample_heun(
    denoise: Denoise,
    noise: Latents,
    sigmas: Float[Tensor, "steps_plus_one"],
    first_frame: Latents,
    augment_noise: Latents,
) -> Latents:
    """Heun's second-order steps: two denoisings each, one at the last. Arguments as for ``sample_euler``.

    Source: Karras et al. 2022, algorithm 1.
    """
    known = KnownFrame(first_frame, augment_noise)
    x = noise * (sigmas[0] ** 2 + 1).sqrt()
    for sigma, next_sigma in pairwise(sigmas):
        x = known.impose(x, sigma)
        slope = (x - known.estimate(denoise, x, sigma)) / sigma
        predicted = x + (next_sigma - sigma) * slope
        if next_sigma > 0:
            imposed = known.impose(predicted, next_sigma)
            slope = (slope + (imposed - known.estimate(denoise, imposed, next_sigma)) / next_sigma) / 2
        x = x + (next_sigma - sigma) * slope
    return x


def sample_multistep(
    denoise: Denoise,
    noise: Latents,
    sigmas: Float[Tensor, "steps_plus_one"],
    first_frame: Latents,
    augment_noise: Latents,
) -> Latents:
    """Second order from the step before, one denoising each. Arguments as for ``sample_euler``.

    Source: DPM-Solver++ (2M), Lu et al. 2022, algorithm 2 with alpha = 1; the last step, to sigma 0, is first order.
    """
    known = KnownFrame(first_frame, augment_noise)
    x = noise * (sigmas[0] ** 2 + 1).sqrt()
    previous: tuple[Tensor, Tensor] | None = None
    for sigma, next_sigma in pairwise(sigmas):
        x = known.impose(x, sigma)
        estimate = known.estimate(denoise, x, sigma)
        extrapolated = estimate
        if previous is not None and next_sigma > 0:
            past_sigma, past_estimate = previous
            ratio = (past_sigma / sigma).log() / (sigma / next_sigma).log()
            extrapolated = estimate + (estimate - past_estimate) / (2 * ratio)
        x = extrapolated + (x - extrapolated) * next_sigma / sigma
        previous = sigma, estimate
    return x


def sample_renoised(
    denoise: Denoise,
    noise: Latents,
    sigmas: Float[Tensor, "steps_plus_one"],
    first_frame: Latents,
    augment_noise: Latents,
    draw_noise: Callable[[int], Latents],
) -> Latents:
    """Jumps to the clean estimate and noises it again to the next level, for networks distilled to few steps.

    Args:
        denoise: Preconditioned network.
        noise: Unit normal.
        sigmas: Descending, a handful, 0 last.
        first_frame: As for ``sample_euler``.
        augment_noise: As for ``sample_euler``.
        draw_noise: Unit normal of a step, by its index.

    Source: Song et al. 2023 (consistency models), algorithm 1.
    """
    known = KnownFrame(first_frame, augment_noise)
    x = noise * (sigmas[0] ** 2 + 1).sqrt()
    for step, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        x = known.impose(x, sigma)
        x = known.estimate(denoise, x, sigma)
        if next_sigma > 0:
            x = x + next_sigma * draw_noise(step)
    return x
