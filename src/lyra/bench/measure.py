"""How things are measured: in a fresh process, by the median, with the peak of its memory."""

import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import torch

from lyra.device.memory import peak_memory_mb
from lyra.files.strict_json import to_json
from lyra.files.tables import format_table


@dataclass(frozen=True)
class Machine:
    """What numbers depend on, without names."""

    cores: int
    memory_gb: float
    instructions: str
    """Widest vector instructions of the processor."""
    gpu: str | None
    torch: str
    python: str


def describe_machine() -> Machine:
    """The machine that this process runs on."""
    capability = torch.backends.cpu.get_cpu_capability()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return Machine(
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gb=round(psutil.virtual_memory().total / 2**30, 1),
        instructions=capability,
        gpu=gpu,
        torch=torch.__version__,
        python=platform.python_version(),
    )


def median_seconds(function: Callable[[], object], repeats: int, warmup: int = 1) -> float:
    """Median wall time of a call."""
    for _ in range(warmup):
        function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def run_isolated(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Calls a module-level function in a fresh process, so that its peak memory is its own.

    Returns:
        What the function returned, with ``peak_memory_mb`` added where it is not there; or ``error`` with the
        reason alone where the process failed or was killed.
    """
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sending, function, arguments), daemon=False)
    process.start()
    sending.close()
    try:
        result = receiving.recv()
    except EOFError:
        result = None
    process.join()
    return result if result is not None else {"error": f"process ended with code {process.exitcode}"}


def _call(sending: Any, function: Callable[..., dict[str, Any]], arguments: tuple) -> None:
    try:
        result = function(*arguments)
        result.setdefault("peak_memory_mb", peak_memory_mb())
    except (MemoryError, RuntimeError) as error:
        result = {"error": " ".join(str(error).split())[:200] or type(error).__name__}
    sending.send(result)


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """One JSON object ``{"machine", "rows"}``, or a table."""
    machine = describe_machine()
    if as_json:
        print(to_json({"machine": asdict(machine), "rows": rows}))
        return
    print(f"{machine.cores} cores, {machine.memory_gb} GB, {machine.instructions}, GPU {machine.gpu or 'none'}")
    print(format_table(rows))
