"""Wrong losses: each term with the other sign, and left out. ``python tests/mutants.py`` shows what notices them."""

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from overfit import CHECKS, forget

from lyra.training import denoiser, depth, losses, moving_student, perceptual, still_student


@dataclass(frozen=True)
class Term:
    """One place of a loss."""

    function: Callable[..., Any]
    code: str
    """What is found there; exactly once in the function."""
    check: str
    """Which of ``overfit.CHECKS`` watches it."""


TERMS = (
    Term(depth.depth_loss, "10 * error", "depth error"),
    Term(depth.depth_loss, "objective.gradient_weight * gradient_error", "depth gradient"),
    Term(depth.depth_loss, "objective.sky_weight * sky_error", "depth sky"),
    Term(denoiser.denoiser_loss, "(error * importance[:, :, 1:]).mean()", "denoiser"),
    Term(denoiser.denoiser_loss, "importance / importance[:, :, 1:].mean(", "denoiser of residuals"),
    Term(still_student.ask_decoder, "(shown - truth).square().sum()", "still color"),
    Term(still_student.ask_decoder, "depth, pixels)", "still depth"),
    Term(still_student.ask_decoder, "opacity.sum()", "still opacity"),
    Term(still_student.ask_decoder, "len(truth) * features(", "still perceptual"),
    Term(moving_student.ask_moment, "(weight * error).sum()", "moving color"),
    Term(moving_student.ask_moment, "depth, pixels)", "moving depth"),
    Term(moving_student.ask_moment, "opacity.sum()", "moving opacity"),
    Term(moving_student.ask_moment, "len(truth) * features(", "moving perceptual"),
    Term(losses.sum_depth_errors, "F.smooth_l1_loss(", "still depth"),
    Term(perceptual.FeatureDistance.__call__, "torch.stack([(a - b)", "still perceptual"),
)
CHANGES = {"sign": "-", "zero": "0 * "}


@contextmanager
def mutated(term: Term, change: str) -> Iterator[None]:
    """Within the context a loss is wrong, for all who have imported it."""
    function = inspect.unwrap(term.function)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(term.code) == 1, f"{term.code!r} is not once in {function.__qualname__}"
    scope = dict(function.__globals__)
    exec(compile(source.replace(term.code, CHANGES[change] + term.code), "<mutant>", "exec"), scope)
    original, function.__code__ = function.__code__, scope[function.__name__].__code__
    forget()
    try:
        yield
    finally:
        function.__code__ = original
        forget()


def is_killed(term: Term, change: str) -> bool:
    """Whether the check that watches a term fails."""
    with mutated(term, change):
        try:
            CHECKS[term.check]()
        except AssertionError:
            return True
    return False


def main() -> None:
    print(f"| {'loss':<40} | {'term':<46} | change | check | killed |\n|---|---|---|---|---|")
    for term in TERMS:
        name = f"{term.function.__module__.removeprefix('lyra.training.')}.{term.function.__qualname__}"
        for change in CHANGES:
            killed = "yes" if is_killed(term, change) else "NO"
            print(f"| {name:<40} | `{term.code}` | {change} | {term.check} | {killed} |", flush=True)


if __name__ == "__main__":
    main()
