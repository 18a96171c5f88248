"""Movers: things that move (``make_thing``), the tracks that they move along (``draw_track``) and how their parts lie
at every key of a track (``pose``). Lengths in scene units, room frame; a thing's own x points ahead.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator

from lyra.worlds.drawing import Draft
from lyra.worlds.world import BOX, CYLINDER, ELLIPSOID

KEYS = 129
"""Instants at which a path is stored, evenly from time 0 to 1; between them it is linear."""

Thing = Literal["box", "ball", "post", "cart", "figure", "animal"]
Style = Literal["slide", "turn", "bounce", "sway", "drive", "walk"]
Ground = Callable[[np.ndarray], np.ndarray]
"""Y of the ground at places [..., 2] (x, z)."""

STYLES: dict[Thing, tuple[Style, ...]] = {
    "box": ("slide", "turn", "bounce", "sway"),
    "ball": ("slide", "bounce", "bounce", "sway"),
    "post": ("slide", "sway", "bounce"),
    "cart": ("drive",),
    "figure": ("walk",),
    "animal": ("walk",),
}
"""How the things that are made here move."""
OUTLINES: dict[Thing, float] = {"box": 0.65, "ball": 0.75, "post": 0.45, "cart": 0.42, "figure": 0.22, "animal": 0.4}
"""Area of a thing's picture at size 1, roughly."""
_PAINTS = "paint checks stripes carpet poster wood marble stone tiles plaster"


@dataclass(frozen=True)
class Limb:
    """A leg or an arm: beads on a line from its root to its end."""

    root: tuple[float, float, float]
    length: float
    phase: float
    """Share of a stride by which it is ahead."""
    beads: tuple[int, ...]
    """Parts, from the root down."""
    foot: int | None
    """The part that stands on the ground; an arm has none."""


@dataclass(frozen=True)
class Body:
    """A thing at rest, its base at the origin."""

    centers: np.ndarray  # [part, 3]
    half_sizes: np.ndarray  # [part, 3]
    yaws: np.ndarray  # [part]
    extent: np.ndarray  # [3]: half sizes of a box around it, which stands on the origin
    limbs: tuple[Limb, ...] = ()


@dataclass(frozen=True)
class Track:
    """Where a thing's base is over time, and how far it is above the ground."""

    place: np.ndarray  # [key, 2]: x, z
    yaw: np.ndarray  # [key]
    lift: np.ndarray  # [key]


def turned_all(yaw: np.ndarray, x: np.ndarray | float, z: np.ndarray | float) -> np.ndarray:
    """Room offsets [..., 2] (x, z) of places in the frames of things with these yaws."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.stack([cos * x + sin * z, cos * z - sin * x], -1)


def _chain(draft: Draft, root: tuple[float, float, float], length: float, thick: float, paint: str | None) -> list[int]:
    """Four overlapping beads; their places follow from the limb."""
    first = len(draft.objects)
    for bead in range(4):
        half = (thick, 0.16 * length, thick)
        draft.add(ELLIPSOID, root, half, 0.0, None if bead or paint is None else paint, period=4 * thick)
    return list(range(first, first + 4))


def _leg(draft: Draft, x: float, z: float, length: float, thick: float, phase: float, paint: str | None) -> Limb:
    root = (x, -length, z)
    beads = _chain(draft, root, length, thick, paint)
    draft.add(ELLIPSOID, (x, 0.0, z), (1.7 * thick, 0.7 * thick, 1.1 * thick), 0.0, None)
    return Limb(root, length, phase, tuple(beads), beads[-1] + 1)


def _make_figure(draft: Draft, size: float) -> tuple[Limb, ...]:
    """A person: legs, torso, arms, head."""
    rng, leg = draft.rng, 0.47 * size
    wide = size * rng.uniform(0.09, 0.13)
    cloth = "paint carpet stripes"
    limbs = [_leg(draft, 0.0, side * 0.5 * wide, leg, 0.045 * size, phase, cloth if phase == 0 else None)
             for side, phase in ((-1, 0.0), (1, 0.5))]  # fmt: skip
    half = (0.75 * wide, 0.2 * size, wide)
    draft.add(ELLIPSOID, (0.0, -0.63 * size, 0.0), half, 0.0, "paint carpet checks stripes", period=0.3 * size)
    for side, phase in ((-1, 0.5), (1, 0.0)):
        root = (0.0, -0.78 * size, side * 1.1 * wide)
        beads = _chain(draft, root, 0.36 * size, 0.032 * size, None)
        limbs.append(Limb(root, 0.36 * size, phase, tuple(beads), None))
    head = (0.075 * size, 0.09 * size, 0.07 * size)
    draft.add(ELLIPSOID, (0.01 * size, -0.91 * size, 0.0), head, 0.0, "sand bark wood", period=0.5 * size)
    return tuple(limbs)


def _make_animal(draft: Draft, size: float) -> tuple[Limb, ...]:
    """Something on four legs, with a head and a tail."""
    leg = 0.4 * size * draft.rng.uniform(0.8, 1.2)
    wide, coat = 0.13 * size, "paint bark sand stone carpet"
    first = len(draft.surfaces)
    limbs = []
    for x, z, phase in ((0.26, -0.6, 0.0), (0.26, 0.6, 0.5), (-0.26, -0.6, 0.5), (-0.26, 0.6, 0.0)):
        paint = coat if len(draft.surfaces) == first else None
        limbs.append(_leg(draft, x * size, z * wide, leg, 0.04 * size, phase, paint))
    draft.add(ELLIPSOID, (0.0, -leg - 0.06 * size, 0.0), (0.38 * size, 0.14 * size, wide), 0.0, coat, period=size)
    neck = (0.36 * size, -leg - 0.16 * size, 0.0)
    draft.add(ELLIPSOID, neck, (0.09 * size, 0.15 * size, 0.07 * size), 0.0, None)
    draft.add(ELLIPSOID, (0.44 * size, neck[1] - 0.1 * size, 0.0), (0.13 * size, 0.08 * size, 0.08 * size), 0.0, None)
    tail = (-0.42 * size, -leg - 0.1 * size, 0.0)
    draft.add(ELLIPSOID, tail, (0.14 * size, 0.03 * size, 0.03 * size), 0.0, None)
    return tuple(limbs)


def _make_cart(draft: Draft, size: float) -> None:
    """A toy car or a trolley on four wheels."""
    rng = draft.rng
    wheel, wide, high = 0.1 * size, 0.24 * size, size * rng.uniform(0.08, 0.16)
    for x, z in ((0.3, -1), (0.3, 1), (-0.3, -1), (-0.3, 1)):
        paint = "bark" if (x, z) == (0.3, -1) else None
        draft.add(ELLIPSOID, (x * size, -wheel, z * wide), (wheel, wheel, 0.4 * wheel), 0.0, paint, period=2 * size)
    body = (0, -1.2 * wheel - high, 0)
    draft.add(BOX, body, (0.5 * size, high, wide), 0.0, _PAINTS, period=size)
    roof = body[1] - high
    if rng.random() < 0.7:
        tall, back = size * rng.uniform(0.08, 0.2), size * rng.uniform(-0.2, 0.0)
        draft.add(BOX, (back, roof - tall, 0), (0.26 * size, tall, 0.85 * wide), 0.0, _PAINTS, period=size)
    else:
        draft.add(ELLIPSOID, (0, roof - 0.15 * size, 0), [0.18 * size] * 3, 0.0, _PAINTS, period=size)


def make_thing(draft: Draft, name: Thing, size: float) -> Body:
    """Adds the parts of one thing to a draft, its base at the origin, about ``size`` long or tall."""
    rng, limbs = draft.rng, ()
    first = len(draft.objects)
    draft.group += 1
    if name == "figure":
        limbs = _make_figure(draft, size)
    elif name == "animal":
        limbs = _make_animal(draft, size)
    elif name == "cart":
        _make_cart(draft, size)
    elif name == "ball":
        half = 0.5 * size * np.array([1, rng.uniform(0.85, 1.15), 1])
        draft.add(ELLIPSOID, (0, -half[1], 0), half, 0.0, _PAINTS, period=size * rng.uniform(0.6, 1.6))
    elif name == "post":
        wide, tall = size * rng.uniform(0.2, 0.3), size * rng.uniform(0.28, 0.38)
        draft.add(CYLINDER, (0, -tall, 0), (wide, tall, wide), 0.0, _PAINTS, period=size)
        draft.add(ELLIPSOID, (0, -2 * tall - 0.7 * wide, 0), [wide] * 3, 0.0, _PAINTS, period=size)
    else:
        half = size * rng.uniform(0.28, 0.55, 3)
        draft.add(BOX, (0, -half[1], 0), half, 0.0, _PAINTS + " books", period=size * rng.uniform(0.6, 1.5))
        if rng.random() < 0.4:
            top = half.min() * rng.uniform(0.5, 0.9)
            spot = (0, -2 * half[1] - top, 0)
            draft.add(int(rng.choice([BOX, ELLIPSOID])), spot, [top] * 3, rng.uniform(0, 1.5), _PAINTS, period=size)
    parts = draft.objects[first:]
    _, centers, halves, yaws, _ = (np.array(values, np.float64) for values in zip(*parts, strict=True))
    return Body(centers, halves, yaws, extent_of(centers, halves, yaws), limbs)


def extent_of(centers: np.ndarray, halves: np.ndarray, yaws: np.ndarray) -> np.ndarray:
    """Half sizes of a box that stands on the origin and holds all parts."""
    cos, sin = np.abs(np.cos(yaws)), np.abs(np.sin(yaws))
    reach = np.stack([cos * halves[:, 0] + sin * halves[:, 2], sin * halves[:, 0] + cos * halves[:, 2]], -1)
    across = (np.abs(centers[:, ::2]) + reach).max(0)
    return np.array([across[0], 0.5 * (halves[:, 1] - centers[:, 1]).max(), across[1]])


def _eased(rng: Generator, t: np.ndarray) -> np.ndarray:
    """Time 0 to 1 at a drawn, changing speed."""
    style = rng.choice(["even", "smooth", "power", "halting"])
    if style == "smooth":
        return t * t * (3 - 2 * t)
    if style == "power":
        return t ** rng.uniform(0.65, 1.5)
    if style == "halting":
        return t - rng.uniform(0.5, 0.9) * np.sin(4 * math.pi * t) / (4 * math.pi)
    return t


def draw_track(rng: Generator, style: Style, start: np.ndarray, end: np.ndarray, extent: np.ndarray) -> Track:
    """How a thing with this extent moves in a style between two places (x, z)."""
    t = np.linspace(0, 1, KEYS)
    way = end - start
    aside = np.array([-way[1], way[0]])
    middle = 0.5 * (start + end) + rng.normal(0, 0.2) * aside
    if style == "sway":
        swings = rng.uniform(0.5, 1.5)
        e = 0.5 - 0.5 * np.cos(2 * math.pi * swings * t)
    elif style == "turn":
        e = 0.3 * _eased(rng, t)
    else:
        e = _eased(rng, t)
    e = e[:, None]
    place = (1 - e) ** 2 * start + 2 * e * (1 - e) * middle + e**2 * end
    lift, spin = np.zeros(KEYS), rng.uniform(-0.6, 0.6)
    if style == "bounce":
        hops = (rng.uniform(1, 2.5) * t + rng.uniform(0, 1)) % 1
        lift = extent[1] * rng.uniform(0.6, 1.6) * 4 * hops * (1 - hops)
        spin = rng.uniform(-3, 3)
    elif style == "turn":
        spin = rng.choice([-1, 1]) * rng.uniform(1.5, 5.0)
    yaw = rng.uniform(-math.pi, math.pi) + spin * _eased(rng, t)
    if style in ("drive", "walk"):
        ahead = (1 - e) * (middle - start) + e * (end - middle)
        yaw = np.unwrap(np.arctan2(-ahead[:, 1], ahead[:, 0]))
    return Track(place, yaw, lift)


def _base_heights(body: Body, track: Track, ground: Ground) -> np.ndarray:
    """Y of the base [key]: the lowest ground below its corners, so that on a slope nothing hangs in the air."""
    # What has legs stands on its own feet; a ball or a post touches near its middle.
    share = 0.0 if body.limbs else 0.7
    corners = [(x, z) for x in (-share, 0, share) for z in (-share, 0, share)]
    offsets = [turned_all(track.yaw, x * body.extent[0], z * body.extent[2]) for x, z in corners]
    return np.max([ground(track.place + offset) for offset in offsets], axis=0)


def pose(body: Body, track: Track, ground: Ground) -> np.ndarray:
    """Centres and yaws [part, key, 4] of a body's parts along a track."""
    centers = np.repeat(body.centers[:, None], KEYS, axis=1)
    base = _base_heights(body, track, ground) - track.lift
    legs = [limb for limb in body.limbs if limb.foot is not None]
    stride = np.zeros(KEYS)
    if legs:
        steps = np.linalg.norm(np.diff(track.place, axis=0), axis=1)
        # A foot stands still while the body moves on by two reaches, then it swings ahead.
        stride = np.concatenate([[0.0], steps.cumsum()]) / (4 * _reach(legs[0]))
        back = np.abs(_foot_places(legs[0], stride)[0])
        centers[..., 1] += legs[0].length - np.sqrt(legs[0].length ** 2 - back**2)
    flat = turned_all(track.yaw, centers[..., 0], centers[..., 2]) + track.place
    result = np.stack([flat[..., 0], base + centers[..., 1], flat[..., 1], track.yaw + body.yaws[:, None]], -1)
    for limb in body.limbs:
        _pose_limb(body, limb, track, ground, stride, result)
    return result


def _reach(leg: Limb) -> float:
    return 0.38 * leg.length


def _foot_places(limb: Limb, stride: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far a foot is ahead of its root, and how far above the ground."""
    phase, reach = (stride + limb.phase) % 1, _reach(limb)
    swing = (2 * phase - 1).clip(0, 1)
    ahead = np.where(phase < 0.5, 1 - 4 * phase, 4 * phase - 3)
    return reach * ahead, 0.22 * limb.length * np.sin(math.pi * swing)


def _pose_limb(body: Body, limb: Limb, track: Track, ground: Ground, stride: np.ndarray, result: np.ndarray) -> None:
    """Strings a limb's beads between its root, which the body carries, and its foot or hand."""
    ahead, raised = _foot_places(limb, stride)
    x, z = limb.root[0], limb.root[2]
    # The beads rest at the root, so that the first of them is where the body has carried it.
    root = result[limb.beads[0], :, :3].copy()
    end = np.empty_like(root)
    end[:, ::2] = turned_all(track.yaw, x + ahead, z) + track.place
    if limb.foot is None:
        end[:, 1] = root[:, 1] + np.sqrt(limb.length**2 - ahead**2)
    else:
        sole = body.half_sizes[limb.foot]
        toe = turned_all(track.yaw, x + ahead + 0.4 * sole[0], z) + track.place
        end[:, 1] = ground(toe) - raised - sole[1]
        result[limb.foot, :, 0], result[limb.foot, :, 2] = toe.T
        result[limb.foot, :, 1] = end[:, 1]
    for index, bead in enumerate(limb.beads):
        # The last bead ends above the sole.
        share = 0.12 + 0.7 * index / (len(limb.beads) - 1)
        result[bead, :, :3] = root + share * (end - root)
