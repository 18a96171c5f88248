"""A whole run of ``lyra synthesize``: from what the user said to a data set."""

import sys
from pathlib import Path

from lyra.errors import LyraError
from lyra.models.loading import load
from lyra.models.model import Model
from lyra.synthesis.choices import SynthesisOptions, SynthesisRun
from lyra.synthesis.manifest import verify
from lyra.synthesis.on_ray import LOCAL, Crew, Team, connected
from lyra.synthesis.planning import Maker, plan_samples
from lyra.synthesis.production import Produced, build_engine, count, holding, produce, showing
from lyra.synthesis.sources import Source, find_inputs
from lyra.teacher import TeacherConfig


def synthesize_data(
    spec: str,
    out: Path,
    model: str,
    size: tuple[int, int] | None,
    options: SynthesisOptions,
    how: SynthesisRun,
    allow_pickle: bool,
) -> Produced:
    """Makes what a folder lacks of a data set, and says what it holds then.

    Raises:
        LyraError: inputs, model, folder or machines will not do; what was finished is kept.
    """
    sources = find_inputs(spec, allow_pickle)
    loaded = load(model)
    config = choose_shape(loaded, size)
    maker = Maker.of(loaded, config, how.estimator)
    minutes = float("inf") if how.minutes is None else how.minutes
    if how.ray is None:
        engine = build_engine(loaded, config, how.device, how.estimator)
        produced = produce(engine, sources, out, options, minutes, how.repair, maker)
    else:
        crew = Crew(model, config, maker, options, out.resolve(), how.device, how.estimator)
        del loaded
        produced = produce_by_many(crew, sources, (*how.ray, LOCAL)[0], how.workers, minutes, how.repair)
    rest = "" if produced.complete else f" of {produced.planned}; the same command goes on"
    aside = f"; {produced.quarantined} set aside, see {out}/quarantine.jsonl" if produced.quarantined else ""
    print(f"{produced.samples} scenes in {out}{rest}{aside}", file=sys.stderr)
    return produced


def produce_by_many(
    crew: Crew,
    sources: list[Source],
    address: str = LOCAL,
    workers: int | None = None,
    minutes: float = float("inf"),
    repair: bool = False,
) -> Produced:
    """As ``produce``, by workers on Ray."""
    planned = plan_samples(sources, crew.maker, crew.options)
    with holding(crew.folder, planned, crew.maker, crew.options, minutes, repair) as backlog, showing(backlog) as bar:
        if not backlog.complete:
            with connected(address, workers) as ray:
                Team(ray, crew, backlog, workers).run(bar)
    return count(crew.folder, backlog)


def choose_shape(model: Model, size: tuple[int, int] | None) -> TeacherConfig:
    """The model's sampling at a height and width; its own when None.

    Raises:
        LyraError: the model does not work at this size.
    """
    config, sizes = model.config.teacher, model.config.sizes
    if size is None or size == (config.height, config.width):
        return config
    if sizes is None:
        raise LyraError(f"model {model.config.name!r} works at {config.height} {config.width}: leave out --size")
    sizes.check(max(size))
    if any(side % sizes.multiple or side < sizes.multiple for side in size):
        raise LyraError(f"--size {size[0]} {size[1]}: give two multiples of {sizes.multiple}")
    return config.at_size(*size)


def verify_data(folder: Path) -> None:
    """Checks a finished data set and says what it holds.

    Raises:
        LyraError: it is not finished, or something is damaged; the message counts and names what.
    """
    held = verify(folder)
    print(
        f"{folder} is whole: {held['samples']} scenes in {held['shards']} shards, {held['missing']} set aside",
        file=sys.stderr,
    )
