"""What ``lyra.load`` gives: a model that turns inputs into scenes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lyra.device.memory import DeviceOptions
from lyra.generate.options import GenerateOptions, TextOptions
from lyra.generate.pipeline import generate
from lyra.models.loading import load
from lyra.models.model import Model
from lyra.scene.scene import Scene


class Generator(Model):
    """A model with the whole chain on top."""

    @classmethod
    def load(cls, name: str | Path) -> "Generator":
        """A bundled model by name ("mini", "smoke"), any model by its folder, or ``owner/name@commit`` of the hub.

        Raises:
            LyraError: there is no such model, or a file of it is missing or damaged.
        """
        return cls(**vars(load(name)))

    def generate(
        self,
        source: Path | str | Sequence[Path | str] | None = None,
        out: Path | str | None = None,
        *,
        prompt: str = "",
        seed: int = 0,
        device: str = "auto",
        options: GenerateOptions | None = None,
        **more: Any,
    ) -> Scene:
        """Turns a photo, several photos, a text or a video into a scene.

        Args:
            source: Any image file, several of one place or a folder of them, any video, or a ``transforms.json`` of
                posed photos; None to begin with the prompt.
            out: Folder for the scene's files; None for a scene in memory, which writes nothing.
            prompt: What the scene shows.
            seed: The same seed gives the same scene on the same machine.
            device: "auto", "cpu", "cuda" or "cuda:1".
            options: Everything else that can be decided; what is said above counts before it.
            more: Fields of :class:`~lyra.generate.options.GenerateOptions`, instead of ``options``.

        Raises:
            LyraError: the input, the folder, the model or the machine will not do.
        """
        chosen = replace(options or GenerateOptions(), **more)
        if prompt:
            chosen = replace(chosen, text=replace(chosen.text, prompt=prompt))
        if seed:
            chosen = replace(chosen, seed=seed)
        if device != "auto":
            chosen = replace(chosen, device=replace(chosen.device, device=device))
        given = [] if source is None else [source] if isinstance(source, Path | str) else source
        return generate(self, [Path(path) for path in given], None if out is None else Path(out), chosen)


__all__ = ["DeviceOptions", "GenerateOptions", "Generator", "TextOptions"]
