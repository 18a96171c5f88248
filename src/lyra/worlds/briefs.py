"""Briefs: a prompt becomes what a world is to show (``read_brief``).

A small grammar for English: adjectives before a noun, or after it ("a table made of dark wood"), belong to it; numbers,
sides and negations are read. What no word list knows is named in the brief.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from lyra.errors import LyraError
from lyra.worlds.vocabulary import (
    BREAKS,
    LINKS,
    NUMBERS,
    PARTICIPLES,
    SETTINGS,
    SHADES,
    SILENT,
    WITHOUT,
    Hour,
    Phrase,
    Place,
    Rgb,
    Weather,
    color_of,
    phrases,
)


@dataclass(frozen=True)
class Look:
    """Color and material of something; what is None was not said."""

    color: str | None = None
    material: str | None = None
    tone: float = 1.0
    """Below 1 darker than the color, above 1 lighter."""

    def rgb(self) -> Rgb | None:
        """The color in sRGB, in [0, 1]."""
        return None if self.color is None else color_of(self.color, self.tone)


@dataclass(frozen=True)
class Wish:
    """Things of one kind that were asked for."""

    name: str
    """A key of ``nouns.ANCHORS``."""
    said: str
    """The word of the prompt."""
    look: Look = Look()
    count: int = 1
    side: int = 0
    """-1 on the left, 1 on the right."""


@dataclass(frozen=True)
class Brief:
    """What a prompt says."""

    prompt: str
    wishes: tuple[Wish, ...]
    place: Place
    setting: str | None
    """A key of ``SETTINGS``."""
    walls: Look = Look()
    floor: Look = Look()
    hour: Hour | None = None
    weather: Weather | None = None
    season: str | None = None
    """Winter or autumn, where they were named."""
    water: bool = False
    absent: tuple[str, ...] = ()
    """Things that were not wanted."""
    unread: tuple[str, ...] = ()
    """Words that nothing understood."""


@dataclass
class _Reading:
    """The state of a prompt half read."""

    words: list[Phrase]
    at: int = 0
    look: Look = field(default_factory=Look)
    count: int | None = None
    side: int = 0
    without: bool = False
    wishes: list[Wish] = field(default_factory=list)
    found: dict[str, str] = field(default_factory=dict)
    surfaces: dict[str, Look] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def peek(self, step: int = 1) -> Phrase:
        index = self.at + step
        return self.words[index] if index < len(self.words) else Phrase(".", {})

    def forget(self) -> None:
        self.look, self.count = Look(), None


def _is_noun(word: Phrase) -> bool:
    return bool({"thing", "setting", "surface"} & set(word.means))


def _adjective(look: Look, word: Phrase) -> Look | None:
    """The look with an adjective added; None if the word is none."""
    if word.text in SHADES:
        return replace(look, tone=SHADES[word.text])
    if "color" in word.means:
        # Of two colors the first is the main one.
        return look if look.color else replace(look, color=word.means["color"])
    if "material" in word.means:
        return look if look.material else replace(look, material=word.means["material"])
    return None


def _names_noun_later(reading: _Reading, step: int = 1) -> bool:
    """Whether a noun follows before the phrase ends: "orange" is then a color, "stone" a material."""
    while (word := reading.peek(step)).text not in BREAKS and word.text not in ",.;:!?":
        if _is_noun(word):
            return True
        step += 1
    # "a red and white sofa"
    return word.text == "and" and _adjective(Look(), reading.peek(step + 1)) is not None and step < 4


def _after(reading: _Reading) -> Look:
    """Adjectives behind a noun: "of dark wood", "in red", "that is green", ", white"; moves on past them."""
    step, look = 1, Look()
    while reading.peek(step).text in LINKS:
        step += 1
    comma = step == 1 and reading.peek().text == ","
    begin = step = step + comma
    while True:
        word = reading.peek(step)
        more = None if _stands_alone(reading, step) else _adjective(look, word)
        if more is None and not (step > begin and word.text == "and"):
            break
        look, step = more or look, step + 1
    ended = reading.peek(step).text in ",.;:!?"
    if begin == 1 or step == begin or (comma and not ended):
        return Look()
    if _is_noun(reading.peek(step)) and "color" not in reading.peek(step).means:
        return Look()
    reading.at += step - 1
    return look


def _stands_alone(reading: _Reading, step: int) -> bool:
    """Whether a word that could be an adjective is a noun: "of tomatoes", "a crate of oranges"."""
    word = reading.peek(step)
    return "thing" in word.means and (word.plural or not _names_noun_later(reading, step + 1))


def _merged(first: Look, second: Look) -> Look:
    tone = first.tone if first.tone != 1 else second.tone
    return Look(first.color or second.color, first.material or second.material, tone)


def _take_thing(reading: _Reading, word: Phrase) -> None:
    name = word.means["thing"]
    look = reading.look
    if reading.without:
        reading.absent.append(name)
        reading.forget()
        return
    count = reading.count or (3 if word.plural else 1)
    side, reading.side = reading.side, 0
    reading.forget()
    reading.wishes.append(Wish(name, word.text, _merged(look, _after(reading)), count, side))


def _take_surface(reading: _Reading, word: Phrase) -> None:
    look = _merged(reading.look, _after(reading))
    reading.surfaces[word.means["surface"]] = look
    reading.forget()


def _take_setting(reading: _Reading, word: Phrase) -> None:
    setting = word.means["setting"]
    if reading.found.get("setting", "room") == "room" or setting != "room":
        reading.found.setdefault("setting", setting)
        if reading.found["setting"] == "room":
            reading.found["setting"] = setting
    if setting == "lake":
        reading.found["water"] = "yes"
    if setting == "forest" and not reading.without:
        kind = reading.peek(-1).means.get("thing")
        reading.wishes.append(Wish(kind if kind in ("conifer", "palm") else "tree", word.text, reading.look, 4))
    if SETTINGS[setting][0] == "room" and reading.look != Look():
        reading.surfaces.setdefault("walls", reading.look)
        if reading.look.material:
            reading.surfaces.setdefault("floor", replace(reading.look, color=None))
    reading.forget()


def _take_side(reading: _Reading, side: int) -> None:
    """A side is of the thing before it, or of the next one where the phrase begins with it."""
    step = -1
    while reading.at + step >= 0 and reading.peek(step).text in ("on", "to", "at", "in", "the"):
        step -= 1
    begins = reading.at + step < 0 or reading.peek(step).text in (",", ".", ";", ":", "and")
    if reading.wishes and not begins and not reading.wishes[-1].side:
        reading.wishes[-1] = replace(reading.wishes[-1], side=side)
    else:
        reading.side = side


def _take_sign(reading: _Reading, word: Phrase) -> bool:
    """Punctuation, sides, numbers and negations."""
    if word.text in ",.;:!?":
        if word.text != "," or not _names_noun_later(reading) or reading.peek().text in BREAKS:
            reading.forget()
        reading.without = False
    elif word.text in ("left", "right"):
        _take_side(reading, -1 if word.text == "left" else 1)
    elif word.text in WITHOUT:
        reading.without = True
    elif word.text in NUMBERS or word.text.isdigit():
        reading.count = int(word.text) if word.text.isdigit() else NUMBERS[word.text]
    else:
        return False
    return True


def _take_noun(reading: _Reading, word: Phrase) -> bool:
    """Things and surfaces; words that are adjectives as well are nouns where no other noun follows."""
    means = word.means
    if "thing" in means and not ({"color", "material"} & set(means) and _names_noun_later(reading)):
        following = reading.peek()
        compound = "thing" in following.means or following.means.get("setting") == "forest"
        # "Kitchen cupboard door": the last noun is the thing.
        if not compound or {"color", "material"} & set(following.means):
            _take_thing(reading, word)
        return True
    if "surface" in means:
        _take_surface(reading, word)
        return True
    return False


def _take_adjective(reading: _Reading, word: Phrase) -> bool:
    """Colors, materials and shades."""
    if word.text in SHADES and "weather" in word.means and not _names_noun_later(reading):
        return False
    more = _adjective(reading.look, word)
    if more is None:
        return False
    reading.look = more
    if word.means.get("material") == "snow":
        reading.found["season"] = "winter"
    return True


def _take_place(reading: _Reading, word: Phrase) -> bool:
    """Places, hours, weather and seasons."""
    if "setting" in word.means:
        _take_setting(reading, word)
        return True
    for kind in ("hour", "weather", "season"):
        if kind in word.means:
            reading.found.setdefault(kind, word.means[kind])
            reading.forget()
            return True
    return False


def _take_break(reading: _Reading, word: Phrase) -> bool:
    """Words between the phrases, after which adjectives belong to something else."""
    if word.text in PARTICIPLES and _is_noun(reading.peek()):
        return True
    if word.text not in BREAKS:
        return False
    if not (word.text == "and" and reading.look != Look() and _names_noun_later(reading)):
        # "Two of the chairs", "a row of houses": the number goes with the noun.
        count = reading.count if word.text in ("of", "the") else None
        reading.forget()
        reading.count = count
    # "Without windows and a bed": the bed is wanted.
    goes_on = word.text in ("a", "an", "the", "or") or (word.text == "and" and reading.peek().text not in ("a", "an"))
    reading.without &= goes_on
    return True


_RULES: tuple[Callable[[_Reading, Phrase], bool], ...] = (
    _take_sign,
    _take_noun,
    _take_adjective,
    _take_place,
    _take_break,
)


_TABLE_TOP = {"cup", "bottle", "bowl", "plate", "vase", "teapot", "laptop", "fruit", "apple", "pear", "citrus", "lemon",
              "banana", "melon", "grapes", "cherry", "bread", "cake", "book", "candle", "knife"}  # fmt: skip
_OUTDOORS = {"house", "hall", "church", "temple", "pagoda", "tower", "castle", "tent", "tree", "conifer", "palm",
             "bush", "car", "truck", "boat", "cow", "horse", "sheep", "streetlamp", "fence", "fountain", "well",
             "rock", "bicycle", "cart", "animal", "bird", "tractor", "bridge", "campfire", "stall", "mailbox",
             "snowman"}  # fmt: skip
MOST = 8
"""Things of one kind that are drawn."""
BUILDINGS = ("house", "hall", "church", "temple", "pagoda", "tower", "castle")


def is_small(name: str) -> bool:
    """Whether a thing lies on tables rather than on floors."""
    return name in _TABLE_TOP


def _place(setting: str | None, wishes: Sequence[Wish]) -> Place:
    """Where a scene is, from what is in it where the prompt names no place."""
    names = {wish.name for wish in wishes}
    if setting is not None and not (setting == "room" and names & {"house", "church"}):
        place = SETTINGS[setting][0]
        if place == "landscape" and names & set(BUILDINGS) and setting in ("meadow",):
            return "building"
        return place
    if names & _OUTDOORS:
        return "building" if names & (set(BUILDINGS) | {"car", "truck", "streetlamp", "fountain"}) else "landscape"
    if names and names <= _TABLE_TOP | {"table", "desk", "flower"} and names & _TABLE_TOP:
        return "table"
    return "room"


def read_brief(prompt: str) -> Brief:
    """What a prompt says.

    Args:
        prompt: English; adjectives, nouns, places, time of day and weather.

    Raises:
        LyraError: no word of it is known.
    """
    reading = _Reading(phrases(prompt))
    while reading.at < len(reading.words):
        word = reading.words[reading.at]
        if not any(rule(reading, word) for rule in _RULES) and word.text not in SILENT:
            reading.unread.append(word.text)
        reading.at += 1
    found = reading.found
    if not (reading.wishes or found or reading.surfaces):
        raise LyraError(
            f"nothing in {prompt[:60]!r} can be drawn: name a place and things in English, as in 'a red sofa in a "
            "wooden room, evening', or give a pipeline by --text-to-image"
        )
    place = _place(found.get("setting"), reading.wishes)
    wishes = tuple(replace(wish, count=min(wish.count, MOST)) for wish in reading.wishes)
    return Brief(
        prompt=prompt,
        wishes=wishes,
        place=place,
        setting=found.get("setting"),
        walls=reading.surfaces.get("walls", Look()),
        floor=reading.surfaces.get("floor", Look()),
        hour=found.get("hour"),  # pyright: ignore[reportArgumentType]
        weather=found.get("weather"),  # pyright: ignore[reportArgumentType]
        season=found.get("season"),
        water="water" in found,
        absent=tuple(reading.absent),
        unread=tuple(dict.fromkeys(reading.unread)),
    )
