"""The one training loop: progress, log, samples, checkpoints, exact resume.

What a step sees depends on the step's number alone (``loss(step)`` draws with its own generator), so that a run that
was killed and resumed goes through the same losses as one that was not.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from tqdm import tqdm

from lyra.device.ranks import Ranks
from lyra.errors import LyraError
from lyra.files import save_image, write_atomically
from lyra.files.strict_json import to_json
from lyra.generate.run_folder import FolderLock
from lyra.training.run_checkpoints import find_checkpoint, write_checkpoint

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
    """The state of a training run in its folder, shared by its processes."""

    def __init__(self, module: nn.Module, folder: Path, config: LoopConfig, ranks: Ranks | None = None):
        self.module, self.folder, self.config, self.ranks = module, folder, config, ranks or Ranks()
        self.step = 0
        self.named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.ema = {name: p.detach().clone() for name, p in self.named.items()}
        self.optimizer = torch.optim.AdamW(
            self.named.values(), config.learning_rate, config.betas, weight_decay=config.weight_decay
        )
        folder.mkdir(parents=True, exist_ok=True)
        self.skipped = 0
        self._restore()
        if self.ranks.first:
            self._trim_log()

    def save(self, lasting: bool = False) -> None:
        """Writes weights, average and optimizer state, whole or not at all."""
        tensors = {"step": torch.tensor([self.step])}
        for name, parameter in self.named.items():
            tensors[f"model/{name}"] = parameter.detach()
            tensors[f"ema/{name}"] = self.ema[name]
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{key}/{name}"] = value if value.ndim else value.reshape(1)
        write_checkpoint(self.folder, self.step, tensors, self.ranks, lasting)

    def _restore(self) -> None:
        stored = find_checkpoint(self.folder, self.ranks)
        if stored is None:
            return
        there = stored.shapes()
        shapes = {key.removeprefix("model/"): shape for key, shape in there.items() if key.startswith("model/")}
        if shapes != {name: tuple(parameter.shape) for name, parameter in self.named.items()}:
            raise LyraError(f"{stored.folder} is of another network: train into another folder, or delete it")
        tensors = {"step": torch.zeros(1, dtype=torch.int64)}
        states = {}
        for name, parameter in self.named.items():
            tensors[f"model/{name}"] = parameter.detach()
            tensors[f"ema/{name}"] = self.ema[name]
            if f"optimizer/step/{name}" in there:
                states[parameter] = {"step": torch.zeros(1), **_moments_like(parameter)}
                tensors |= {f"optimizer/{key}/{name}": value for key, value in states[parameter].items()}
        stored.read(tensors, self.ranks)
        self.step = int(tensors["step"])
        for parameter, state in states.items():
            self.optimizer.state[parameter] = state | {"step": state["step"].reshape(())}

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
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
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


def _moments_like(parameter: nn.Parameter) -> dict[str, Tensor]:
    return {key: torch.zeros_like(parameter.detach()) for key in ("exp_avg", "exp_avg_sq")}


def fit(
    module: nn.Module,
    loss: Callable[[int], tuple[Tensor, dict[str, float]]],
    folder: Path,
    config: LoopConfig,
    sample: Callable[[], Float[Tensor, "3 height width"]] | None = None,
    *,
    ranks: Ranks | None = None,
    listen: Callable[[dict[str, float | int]], None] | None = None,
) -> None:
    """Trains ``module`` in place and leaves it with its averaged weights; continues what ``folder`` holds.

    Args:
        module: What learns. In several processes its gradients are brought together by whom ``loss`` asks
            (``lyra.training.sharing``).
        loss: Of a step's number, the loss and further numbers for the log; a "loss" among them is logged instead of
            this process's own.
        folder: Checkpoints, log (one JSON object a line) and samples (PNG).
        config: Length and speed.
        sample: A picture of what the averaged weights do; asked for in every process, written by the first.
        ranks: The processes that train together.
        listen: Told every line of the log, in the first process.

    Raises:
        LyraError: the folder's checkpoint is of another network or damaged, or another run is in the folder.
        RuntimeError: the gradients of many steps in a row are not finite.
    """
    ranks = ranks or Ranks()
    with _alone(folder, ranks):
        run = Run(module, folder, config, ranks)
        module.train()
        _advance(run, loss, sample, listen)
        run.save(lasting=run.step >= config.steps)
        if sample is not None:
            _save_sample(run, sample)
    with torch.no_grad():
        for name, parameter in run.named.items():
            parameter.copy_(run.ema[name])
    module.eval()


@contextmanager
def _alone(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Holds the folder for this run, by its first process."""
    lock, refused = FolderLock(folder), None
    if ranks.first:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.take()
        except LyraError as error:
            refused = str(error)
    refused = ranks.agree(refused)
    if refused is not None:
        raise LyraError(refused)
    with lock:
        yield


def _advance(
    run: Run,
    loss: Callable[[int], tuple[Tensor, dict[str, float]]],
    sample: Callable[[], Tensor] | None,
    listen: Callable[[dict[str, float | int]], None] | None,
) -> None:
    deadline = time.monotonic() + 60 * run.config.minutes
    with _open_log(run) as log, _progress(run) as bar:
        while run.step < run.config.steps and _in_time(run, deadline):
            began, step = time.monotonic(), run.step
            value, details = loss(step)
            norm = run.advance(value)
            row = {"step": step, "loss": value.item(), **details, "gradient_norm": norm}
            row["seconds"] = round(time.monotonic() - began, 3)
            if log is not None:
                log.write(to_json(row) + "\n")
                log.flush()
                if listen is not None:
                    listen(row)
            bar.update()
            bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
            if run.step % run.config.checkpoint_every == 0 and run.step < run.config.steps:
                run.save()
            if sample is not None and run.step % run.config.sample_every == 0:
                _save_sample(run, sample)


@contextmanager
def _open_log(run: Run) -> Iterator[TextIO | None]:
    if not run.ranks.first:
        yield None
        return
    with (run.folder / LOG).open("a") as log:
        yield log


def _in_time(run: Run, deadline: float) -> bool:
    """By the first process's clock, since all must stop at one step."""
    return run.config.minutes == float("inf") or run.ranks.agree(time.monotonic() < deadline)


def _progress(run: Run) -> tqdm:
    total = run.config.steps if run.config.steps < LoopConfig.steps else None
    quiet = not run.ranks.first
    return tqdm(total=total, initial=run.step, desc=run.folder.name, mininterval=1, disable=quiet)


def _save_sample(run: Run, sample: Callable[[], Tensor]) -> None:
    run.module.eval()
    with run.averaged(), torch.no_grad():
        picture = sample()
        if run.ranks.first:
            save_image(picture, run.folder / "samples" / f"{run.step:07d}.png")
    run.module.train()
