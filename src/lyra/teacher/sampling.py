"""EDM preconditioning and the Euler sampler of the teacher, as plain functions.

Notation: ``network`` is the raw F(c_in x, c_noise); ``denoise`` maps (x, sigma) to an estimate of the clean x0.

Source: ``DiffusionGen3CModel.generate_samples_from_batch``; golden ``gen3c_sampler``.
"""

from collections.abc import Callable

import torch
from diffusers import EDMEulerScheduler
from jaxtyping import Float
from torch import Tensor

Network = Callable[[Tensor, Tensor], Tensor]
Denoise = Callable[[Tensor, Tensor], Tensor]

SIGMA_DATA = 0.5
AUGMENT_SIGMA = 0.001
"""Noise level given to the known first frame."""


def schedule_sigmas(scheduler: EDMEulerScheduler, steps: int) -> Float[Tensor, "steps_plus_one"]:
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


def sample_euler(
    denoise: Denoise,
    noise: Float[Tensor, "batch channel time height width"],
    sigmas: Float[Tensor, "steps_plus_one"],
    first_frame: Float[Tensor, "batch channel time height width"],
    augment_noise: Float[Tensor, "batch channel time height width"],
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Float[Tensor, "batch channel time height width"]:
    """Draws latents whose first latent frame is known.

    At every step above ``AUGMENT_SIGMA`` the first frame is replaced by the known one with a little fixed noise,
    and its denoised estimate by the known one. The last steps, below it, leave the first frame to the network.

    Args:
        denoise: Preconditioned (and guided) network.
        noise: Unit normal.
        sigmas: From ``schedule_sigmas``.
        first_frame: Normalized latents; only the first latent frame is read.
        augment_noise: Unit normal, the same at every step and for every clip.
        on_step: Called with the step's index and the state after it.
    """
    known = torch.zeros_like(noise)
    known[:, :, 0] = 1
    x = noise * (sigmas[0] ** 2 + 1).sqrt()
    for step in range(len(sigmas) - 1):
        sigma, next_sigma = sigmas[step], sigmas[step + 1]
        mask = known if sigma > AUGMENT_SIGMA else torch.zeros_like(known)
        # The known frame carries noise of AUGMENT_SIGMA, scaled so that c_in of the current level brings it to the
        # network as c_in of its own level would.
        rescale = ((sigma**2 + SIGMA_DATA**2) / (AUGMENT_SIGMA**2 + SIGMA_DATA**2)).sqrt()
        x = mask * (first_frame + AUGMENT_SIGMA * augment_noise) * rescale + (1 - mask) * x
        estimate = denoise(x, sigma.expand(len(x)))
        estimate = mask * first_frame + (1 - mask) * estimate
        x = x + (next_sigma - sigma) * (x - estimate) / sigma
        if on_step is not None:
            on_step(step, x)
    return x
