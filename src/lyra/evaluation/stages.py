"""Time and memory of an evaluation, stage by stage."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lyra.device.memory import peak_memory_mb


@dataclass
class Stages:
    """Seconds by stage, and the process' largest resident memory by its end."""

    seconds: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Times a stage; one that is entered again adds to its time."""
        began = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began
        self.memory[name] = peak_memory_mb()

    def rows(self) -> list[dict[str, str | float]]:
        """One row a stage."""
        return [
            {"stage": name, "seconds": round(seconds, 3), "peak_memory_mb": self.memory[name]}
            for name, seconds in self.seconds.items()
        ]
