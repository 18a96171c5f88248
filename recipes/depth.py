"""Teaches mini's depth network real rooms, from data that lies on this machine; run it again and again.

    apt-get download ufoai-maps ufoai-textures sweethome3d-furniture    # then dpkg -x, or install them
    recipes/depth.py render --maps BASE --furniture FOLDER --minutes 30
    recipes/depth.py label --photographs FOLDER --fastdepth fastdepth_quant.tflite
    recipes/depth.py train --minutes 9 --steps 3000                     # in legs
    recipes/depth.py measure --fastdepth fastdepth_quant.tflite

BASE holds ``0maps.pk3`` and ``0textures.pk3`` (/usr/share/games/ufoai/base), FOLDER the ``*.sh3f``
(/usr/share/sweethome3d/furniture). What is rendered stays on this machine: it is made of GPL and CC data.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
import tyro

import lyra
from lyra.evaluation.depth_scores import DepthMethod, constant_depth, row_depth, score_depth
from lyra.models.loading import save
from lyra.training.depth_course import COURSE_LOOP, Course, label_photographs, render_worlds, teach
from lyra.training.depth_pictures import (
    FIRST_HELD_OUT_ROOM,
    Furnisher,
    decode_depth,
    load_pictures,
    render_maps,
    render_rooms,
)
from lyra.training.fastdepth import FastDepth
from lyra.worlds.furniture import FurnitureStore
from lyra.worlds.maps import MapArchive

Item = TypeVar("Item")
FIRST_WORLD, WORLD_SIDE = 100_000, 288


def until(items: Iterable[Item], minutes: float) -> Iterator[Item]:
    deadline = time.monotonic() + 60 * minutes
    for item in items:
        if time.monotonic() > deadline:
            return
        yield item


@dataclass(frozen=True)
class Render:
    """Renders maps, furnished rooms and worlds; what is there stays."""

    maps: Path = Path("/usr/share/games/ufoai/base")
    furniture: Path = Path("/usr/share/sweethome3d/furniture")
    data: Path = Path("runs/depth/data")
    minutes: float = 30.0
    """For each of the three."""
    rooms: int = 400
    worlds: int = 300

    def run(self) -> None:  # noqa: D102
        archive, furnisher = MapArchive(self.maps), Furnisher(FurnitureStore(self.furniture), MapArchive(self.maps))
        held_out = range(FIRST_HELD_OUT_ROOM, FIRST_HELD_OUT_ROOM + max(1, self.rooms // 20))
        for seed in until([*held_out, *range(self.rooms)], self.minutes):
            render_rooms(furnisher, self.data / "rooms", [seed])
        for name in until(archive.names, self.minutes):
            render_maps(archive, self.data / "maps", only=lambda other, name=name: other == name)
        for seed in until(range(FIRST_WORLD, FIRST_WORLD + self.worlds), self.minutes):
            render_worlds(self.data / "worlds", range(seed, seed + 1), WORLD_SIDE)


@dataclass(frozen=True)
class Label:
    """Lets FastDepth say what it thinks of photographs."""

    photographs: Path
    fastdepth: Path
    data: Path = Path("runs/depth/data")

    def run(self) -> None:  # noqa: D102
        label_photographs(self.photographs, FastDepth(self.fastdepth), self.data / "photographs")


@dataclass(frozen=True)
class Train:
    """Goes on training, and writes the model with the depth network as far as it is."""

    data: Path = Path("runs/depth/data")
    legs: Path = Path("runs/depth/legs")
    start: str = "mini"
    """The model whose depth network is trained on, and whose other parts are kept."""
    out: Path = Path("runs/depth/model")
    minutes: float = 9.0
    steps: int = 3000
    """In all legs together; the rate falls to nothing over the last ones."""

    def run(self) -> None:  # noqa: D102
        model = lyra.load(self.start)
        course = Course(self.data)
        if not any(pool.weak for pool in course.pools()):
            print("no labels of photographs: training without a weak teacher")
        teach(model.depth, course, self.legs, replace(COURSE_LOOP, minutes=self.minutes, steps=self.steps))
        save(model, self.out)


@dataclass(frozen=True)
class Measure:
    """Errors on held-out maps and rooms."""

    data: Path = Path("runs/depth/data")
    models: tuple[str, ...] = ("mini", "runs/depth/model")
    fastdepth: Path | None = None
    pictures: int = 60
    """Of each kind."""

    def run(self) -> None:  # noqa: D102
        methods: dict[str, DepthMethod] = {"constant": constant_depth, "1/row": row_depth}
        if self.fastdepth is not None:
            teacher = FastDepth(self.fastdepth)
            methods["FastDepth"] = lambda image: (teacher(image[None]) + teacher(image[None].flip(-1)).flip(-1))[0]
        for name in self.models:
            network = lyra.load(name).depth
            methods[name] = lambda image, network=network: network.predict(image).depth
        for kind in ("rooms", "maps"):
            pictures = load_pictures(sorted((self.data / kind / "held_out").glob("*.safetensors")))
            picks = torch.linspace(0, len(pictures) - 1, min(self.pictures, len(pictures))).long().tolist()
            for name, method in methods.items():
                rows = []
                for index in picks:
                    depth = decode_depth(pictures.depth[index])
                    # The middle three quarters of the rows: pictures of photographs' shape.
                    window = slice(len(depth) // 8, len(depth) - len(depth) // 8)
                    image, depth = pictures.images[index][:, window].float() / 255, depth[window]
                    known = depth.isfinite() & (depth < 60)
                    rows.append(asdict(score_depth(method(image), depth, known, float(pictures.focal[index]))))
                means = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
                print(kind, len(rows), f"{name:>20}", " ".join(f"{key} {value:.3f}" for key, value in means.items()))


if __name__ == "__main__":
    tyro.cli(Render | Label | Train | Measure).run()  # pyright: ignore[reportCallIssue]
