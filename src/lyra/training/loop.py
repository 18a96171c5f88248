"""The one training loop: progress, log, samples, checkpoints, exact resume.

What a step sees depends on the step's number alone (``loss(step)`` draws with its own generator), so that a run that
was killed and resumed goes through the same losses as one that was not.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from lyra.errors import LyraError
from lyra.files import load_tensors, save_image, save_tensors, write_atomically
from lyra.files.strict_json import to_json

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast a part learns."""

    steps: int = 1_000_000
    """Stop at this step, counted over all legs."""
    minutes: float = float("inf")
    """Stop cleanly after this much wall time of this leg."""
    learning_rate: float = 1e-4
    warmup: int = 100
    cooldown: int = 0
    """Steps before ``steps`` over which the rate falls to nothing."""
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.998
    """Decay of the weights' moving average, which is what is sampled and exported."""
    checkpoint_every: int = 200
    sample_every: int = 500


MOST_SKIPPED = 20
"""Steps in a row whose gradients may be not finite."""


class Run:
    """The state of a training run in its folder."""

    def __init__(self, module: nn.Module, folder: Path, config: LoopConfig):
        self.module, self.folder, self.config = module, folder, config
        self.step = 0
        self.named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.ema = {name: p.detach().clone() for name, p in self.named.items()}
        self.optimizer = torch.optim.AdamW(
            self.named.values(), config.learning_rate, config.betas, weight_decay=config.weight_decay
        )
        folder.mkdir(parents=True, exist_ok=True)
        self.skipped = 0
        if (folder / CHECKPOINT).exists():
            self._restore()
        self._trim_log()

    def save(self) -> None:
        """Writes weights, average and optimizer state in one file, atomically."""
        tensors = {"step": torch.tensor(self.step)}
        for name, parameter in self.named.items():
            tensors[f"model/{name}"] = parameter.detach().cpu()
            tensors[f"ema/{name}"] = self.ema[name].cpu()
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{key}/{name}"] = value.cpu()
        save_tensors(tensors, self.folder / CHECKPOINT)

    def _restore(self) -> None:
        tensors = load_tensors(self.folder / CHECKPOINT)
        shapes = {key.removeprefix("model/"): t.shape for key, t in tensors.items() if key.startswith("model/")}
        if shapes != {name: parameter.shape for name, parameter in self.named.items()}:
            raise LyraError(
                f"{self.folder / CHECKPOINT} is of another network: train into another folder, or delete it"
            )
        self.step = int(tensors["step"])
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(tensors[f"model/{name}"])
                self.ema[name].copy_(tensors[f"ema/{name}"])
                state = {
                    key: tensors[f"optimizer/{key}/{name}"]
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"optimizer/{key}/{name}" in tensors
                }
                if state:
                    self.optimizer.state[parameter] = state

    def _trim_log(self) -> None:
        # Steps after the checkpoint are run again; their old lines go, a line that a kill cut short among them.
        log = self.folder / LOG
        if log.exists():
            kept = log.read_text().splitlines()[: self.step]
            with write_atomically(log) as path:
                path.write_text("".join(f"{line}\n" for line in kept))

    def advance(self, loss: Tensor) -> float:
        """One optimizer step; returns the gradient's norm before clipping."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.named.values(), self.config.clip)
        if not bool(norm.isfinite()):
            return self._skip(norm)
        self.skipped = 0
        rise = min(1.0, (self.step + 1) / self.config.warmup)
        fall = min(1.0, (self.config.steps - self.step) / max(1, self.config.cooldown))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * rise * fall
        self.optimizer.step()
        self.step += 1
        # The average forgets the start quickly: its window grows with the run up to 1 / (1 - ema).
        decay = min(self.config.ema, self.step / (self.step + 10))
        with torch.no_grad():
            for name, parameter in self.named.items():
                self.ema[name].lerp_(parameter, 1 - decay)
        return float(norm)

    def _skip(self, norm: Tensor) -> float:
        """Leaves a step out whose gradient is not finite: each step is drawn by its number, so it would come again."""
        self.step += 1
        self.skipped += 1
        if self.skipped > MOST_SKIPPED:
            raise RuntimeError(f"the gradients of {self.skipped} steps in a row are not finite: the training diverged")
        return float(norm)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the context the module holds the averaged weights."""
        current = {name: p.detach().clone() for name, p in self.named.items()}
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(self.ema[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.named.items():
                    parameter.copy_(current[name])


def fit(
    module: nn.Module,
    loss: Callable[[int], tuple[Tensor, dict[str, float]]],
    folder: Path,
    config: LoopConfig,
    sample: Callable[[], Float[Tensor, "3 height width"]] | None = None,
) -> None:
    """Trains ``module`` in place and leaves it with its averaged weights; continues what ``folder`` holds.

    Args:
        module: What learns.
        loss: Of a step's number, the loss and further numbers for the log.
        folder: Checkpoint, log (one JSON object a line) and samples (PNG).
        config: Length and speed.
        sample: A picture of what the averaged weights do.

    Raises:
        LyraError: the folder's checkpoint is of another network.
        RuntimeError: the gradients of many steps in a row are not finite.
    """
    run = Run(module, folder, config)
    deadline = time.monotonic() + 60 * config.minutes
    module.train()
    with (folder / LOG).open("a") as log, _progress(run) as bar:
        while run.step < config.steps and time.monotonic() < deadline:
            began, step = time.monotonic(), run.step
            value, details = loss(step)
            norm = run.advance(value)
            row = {"step": step, "loss": value.item(), **details, "gradient_norm": norm}
            log.write(to_json({**row, "seconds": round(time.monotonic() - began, 3)}) + "\n")
            log.flush()
            bar.update()
            bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
            if run.step % config.checkpoint_every == 0:
                run.save()
            if sample is not None and run.step % config.sample_every == 0:
                _save_sample(run, sample)
    run.save()
    if sample is not None:
        _save_sample(run, sample)
    with torch.no_grad():
        for name, parameter in run.named.items():
            parameter.copy_(run.ema[name])
    module.eval()


def _progress(run: Run) -> tqdm:
    total = run.config.steps if run.config.steps < LoopConfig.steps else None
    return tqdm(total=total, initial=run.step, desc=run.folder.name, mininterval=1)


def _save_sample(run: Run, sample: Callable[[], Tensor]) -> None:
    run.module.eval()
    with run.averaged(), torch.no_grad():
        save_image(sample(), run.folder / "samples" / f"{run.step:07d}.png")
    run.module.train()
