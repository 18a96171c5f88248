"""Prompts: what the words say, and that the picture shows it."""

import colorsys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageColor

from lyra.errors import LyraError
from lyra.geometry.sky import MAX_DEPTH
from lyra.worlds.asked_things import extent
from lyra.worlds.briefs import Brief, Look, read_brief
from lyra.worlds.commissions import Commission, draw_commission
from lyra.worlds.house_things import ON_TABLES, ON_WALLS
from lyra.worlds.nouns import ANCHORS, thing_nouns
from lyra.worlds.outdoor_things import GROWN, STANDING
from lyra.worlds.tracing import world_hits
from lyra.worlds.vocabulary import color_of, color_words


def said(brief: Brief) -> list[tuple[int, str, str | None, str | None]]:
    return [(wish.count, wish.name, wish.look.color, wish.look.material) for wish in brief.wishes]


@pytest.mark.parametrize(
    ("prompt", "wishes"),
    [
        ("a red sofa in a wooden room, evening", [(1, "sofa", "red", None)]),
        ("a couch of blue leather", [(1, "sofa", "royalblue", "leather")]),
        ("Grand piano, black", [(1, "piano", "black", None)]),
        ("an orange and a green apple", [(1, "citrus", None, None), (1, "apple", "green", None)]),
        ("an orange car beside a white house", [(1, "car", "orange", None), (1, "house", "white", None)]),
        ("bowl of red apples", [(1, "bowl", None, None), (3, "apple", "red", None)]),
        ("crates of tomatoes", [(3, "box", None, None), (3, "fruit", None, None)]),
        ("a white oak table", [(1, "table", "white", "wood")]),
        ("a kitchen cupboard door", [(1, "door", None, None)]),
        ("a table made of dark wood", [(1, "table", None, "wood")]),
        ("two stools painted yellow", [(2, "stool", "gold", None)]),
        ("a red and white lighthouse", [(1, "tower", "red", None)]),
        ("poodles, geese and 4 women", [(3, "dog", None, None), (3, "bird", None, None), (4, "person", None, None)]),
        ("a lemon couch under an orange tree", [(1, "sofa", "gold", None), (1, "tree", None, None)]),
        ("a ginger cat", [(1, "cat", "orange", None)]),
        ("a stone fountain", [(1, "fountain", None, "stone")]),
        ("a white standing desk", [(1, "desk", "white", None)]),
    ],
)  # fmt: skip
def test_adjectives_and_numbers_go_with_their_noun(prompt: str, wishes: list):
    assert said(read_brief(prompt)) == wishes


def test_places_walls_hours_and_weather():
    brief = read_brief("A kitchen with pale green walls and a tiled floor, sunset")
    assert (brief.place, brief.setting, brief.hour) == ("room", "kitchen", "evening")
    assert brief.walls == Look("green", None, 1.5)
    assert brief.floor == Look(None, "tiles")
    assert read_brief("a wooden room").walls.material == "wood"
    assert read_brief("a foggy meadow with cows").weather == "fog"
    assert read_brief("a castle on a snowy mountain").season == "winter"
    assert read_brief("a cup and a plate").place == "table"
    assert read_brief("a church").place == "building"
    assert read_brief("a snowy pine forest").wishes[0].name == "conifer"


def test_what_is_not_wanted_is_no_wish():
    brief = read_brief("a street with a bus, no cars or people")
    assert said(brief) == [(1, "truck", None, None)]
    assert brief.absent == ("car", "person")
    assert read_brief("a bedroom without windows and a red bed").absent == ("window",)


def test_sides_go_with_the_thing_beside_them():
    wishes = read_brief("a lamp on the left, a chair on the right and, on the left, a table").wishes
    assert [(wish.name, wish.side) for wish in wishes] == [("lamp", -1), ("chair", 1), ("table", -1)]


def test_words_that_nothing_understands_are_named():
    assert read_brief("a frobnicated sofa").unread == ("frobnicated",)
    with pytest.raises(LyraError, match="--text-to-image"):
        read_brief("frobnicated quux")
    with pytest.raises(LyraError):
        read_brief("  ...  ")


def test_synonyms_of_many_kinds_are_known():
    nouns = thing_nouns()
    pairs = {"settee": "sofa", "limousine": "car", "cathedral": "church", "dalmatian": "dog", "wardrobe": "cabinet",
             "birch": "tree", "spruce": "conifer", "tangerine": "citrus", "lorry": "truck"}  # fmt: skip
    assert {word: nouns[word] for word in pairs} == pairs
    drawable = {*STANDING, *ON_WALLS, *ON_TABLES, *GROWN}
    assert set(ANCHORS) - drawable == {"house", "hall", "church", "temple", "pagoda", "tower"}


def test_every_color_word_is_a_color():
    for name in set(color_words().values()):
        assert len(color_of(name)) == 3
    assert color_of("red", 0.5)[0] == 0.5 and color_of("red", 2.0)[1] == 0.5


@pytest.mark.parametrize("name", sorted(STANDING))
def test_a_thing_stands_on_its_ground_in_a_likely_size(name: str):
    wide, deep, high = extent(name)
    assert 0.01 < high < 15
    assert 0.05 < max(wide, deep) < 10


def seen(commission: Commission, name: str) -> torch.Tensor:
    """Where the picture shows the first thing of a name."""
    group = next(thing.group for thing in commission.shown if thing.name == name)
    surface = world_hits(commission.world, commission.camera)[1][0]
    return torch.where(surface >= 6, commission.world.groups[(surface - 6).clamp(min=0)], -1) == group


@pytest.mark.parametrize(
    ("prompt", "name", "color"),
    [
        ("a red sofa in a room with white walls", "sofa", "red"),
        ("a blue car on grass", "car", "blue"),
        ("a green vase on a table", "vase", "green"),
    ],
)
def test_the_picture_shows_the_color_asked_for(prompt: str, name: str, color: str):
    commission = draw_commission(prompt, 3, 96, 128)
    assert all(thing.in_sight for thing in commission.shown)
    image, depth = commission.render()
    pixels = image[:, seen(commission, name)].T.numpy()
    wanted = colorsys.rgb_to_hsv(*(value / 255 for value in ImageColor.getrgb(color)))[0]
    hues = np.array([colorsys.rgb_to_hsv(*pixel)[:2] for pixel in pixels.tolist()])
    off = np.abs((hues[:, 0] - wanted + 0.5) % 1 - 0.5)
    assert ((off < 0.09) & (hues[:, 1] > 0.25)).mean() > 0.3
    assert depth.min() > 0.1
    assert depth.max() <= MAX_DEPTH


def test_the_same_words_and_seed_draw_the_same():
    first, again, other = (draw_commission("a chair and a lamp", seed, 48, 64) for seed in (1, 1, 2))
    assert torch.equal(first.render()[0], again.render()[0])
    assert not torch.equal(first.render()[0], other.render()[0])


def test_a_world_is_at_scale_and_clear_of_the_cameras():
    depth = draw_commission("a church in a village", 0, 64, 64).render()[1]
    assert 0.6 < float(depth[depth < MAX_DEPTH].median()) < 1.6


def test_a_thing_out_of_sight_is_said():
    commission = draw_commission("a door", 0, 48, 64)
    assert commission.notes() == []
    hidden = replace(commission, shown=(replace(commission.shown[0], share=0.0),))
    assert "no place in sight was found for: door" in hidden.notes()[0]


def test_a_prompt_of_which_every_draw_is_dull_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lyra.worlds.commissions.settled", lambda world: None)
    with pytest.raises(LyraError, match="another --seed"):
        draw_commission("a chair", 0, 48, 64)


def test_a_prompt_makes_a_scene_with_the_depth_it_was_drawn_with(tmp_path: Path):
    import lyra
    from lyra.generate.options import GenerateOptions
    from lyra.views.views import Views

    model = lyra.load("mini")
    options = GenerateOptions(seed=2, size=128, trajectories=("left",))
    with pytest.warns(UserWarning, match="frobnicated"):
        scene = model.generate(None, tmp_path / "out", prompt="a red frobnicated sofa", options=options)
    assert scene.provenance["fov"]["source"] == "depth estimator"
    assert any("frobnicated" in note for note in scene.provenance["input"]["notes"])
    views = Views.load(tmp_path / "out/clips/input.safetensors")
    exact = draw_commission("a red frobnicated sofa", 2, *views.images.shape[2:]).render()[1]
    valid = exact < MAX_DEPTH
    assert torch.allclose(views.depth[0][valid], (exact / exact[valid].median())[valid], rtol=1e-4)
