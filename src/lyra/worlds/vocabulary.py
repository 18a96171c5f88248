"""The vocabulary of prompts: phrases of each kind of word, and a prompt cut into them (``phrases``)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from PIL import ImageColor

from lyra.worlds.nouns import said_phrases, thing_nouns

Place = Literal["room", "table", "street", "village", "building", "landscape"]
Hour = Literal["morning", "noon", "evening", "night"]
Weather = Literal["clear", "cloudy", "overcast", "fog"]
Rgb = tuple[float, float, float]

SETTINGS: dict[str, tuple[Place, str]] = {
    "room": ("room", "interior, chamber, indoor, indoors, inside, hallway, corridor, lobby, studio, loft, flat, attic"),
    "living room": ("room", "lounge room, sitting room, parlor, parlour, living area, salon, den, lounge area, "
    "family room"),
    "kitchen": ("room", "kitchenette, galley, pantry"),
    "dining room": ("room", "restaurant, cafe, canteen, bistro, diner, coffee shop, bar, pub"),
    "bedroom": ("room", "dormitory, hotel room, nursery, bed room, guest room"),
    "bathroom": ("room", "washroom, restroom, bath room, shower room"),
    "office": ("room", "study, workroom, classroom, home office, laboratory, lab"),
    "library": ("room", "reading room, bookshop, bookstore"),
    "workshop": ("room", "basement, cellar, storeroom, warehouse, storage room, factory"),
    "gallery": ("room", "art gallery, exhibition, ballroom"),
    "table top": ("table", "tabletop, still life, table top, breakfast, picnic, dinner, lunch, meal, desktop, table "
    "setting"),
    "street": ("street", "road, avenue, alley, lane, city, town, boulevard, downtown, sidewalk, pavement, "
    "crossroad, urban"),
    "village": ("village", "hamlet, settlement, square, plaza, marketplace, market, market square, town square, "
    "suburb"),
    "park": ("building", "garden, yard, backyard, courtyard, lawn, playground, terrace, patio, orchard, front yard"),
    "farm": ("building", "farmyard, field, ranch, countryside, pasture, paddock, vineyard, rural"),
    "meadow": ("landscape", "grassland, prairie, plain, savanna, steppe, valley, grass, moor, fields"),
    "forest": ("landscape", "woods, woodland, jungle, grove, rainforest, wilderness, wood path"),
    "mountains": ("landscape", "mountain, hill, hills, alps, peak, canyon, volcano, hillside, mountainside, slope, "
    "peaks"),
    "beach": ("landscape", "shore, seaside, coast, seashore, island, bay, coastline"),
    "desert": ("landscape", "dunes, dune, oasis, sahara, badlands"),
    "lake": ("landscape", "pond, river, lakeside, riverside, riverbank, stream, sea, ocean, harbor, harbour, water, "
    "waterside"),
    "snowfield": ("landscape", "glacier, tundra, arctic, snow field, ski slope, iceberg"),
}  # fmt: skip
"""Where a scene can be: how its world is drawn, and further words for it."""

_COLORS = (
    "red scarlet vermilion; crimson ruby; green emerald; darkgreen bottle-green forest-green; olive khaki-green; "
    "lightgreen mint lime-green; royalblue blue cobalt azure; navy navy-blue dark-blue; skyblue light-blue sky-blue "
    "baby-blue; turquoise aqua aquamarine cyan; teal petrol; gold yellow mustard golden amber gilded lemon "
    "lemon-yellow; orange tangerine ginger apricot; saddlebrown brown chestnut chocolate mocha tan-brown; tan beige "
    "sand-colored camel khaki; purple violet mauve lilac lavender plum-colored; indigo; hotpink pink rose-colored "
    "fuchsia magenta; lightpink pastel-pink; maroon burgundy wine-red dark-red; salmon coral peach-colored; white "
    "snow-white ivory-white; ivory cream off-white eggshell; silver; gray grey slate charcoal; black ebony jet-black "
    "pitch-black"
)
_MATERIALS: dict[str, str] = {
    "wood": "wooden, oak, timber, pine, walnut, mahogany, teak, bamboo, plywood, log, wicker, rattan, oaken",
    "brick": "bricks, brickwork",
    "stone": "granite, concrete, cobblestone, slate, limestone, sandstone, stony, cement, rocky",
    "marble": "marbled, porcelain, ceramic",
    "tiles": "tile, tiled, checkerboard",
    "carpet": "carpeted, velvet, woolen, wool, fabric, cloth, cotton, plush, linen, felt, knitted, fluffy, fur",
    "plaster": "plastered, stucco, whitewashed, painted",
    "checks": "checked, checkered, chequered, plaid, tartan, gingham, patterned",
    "stripes": "striped, stripy, pinstriped",
    "leather": "suede",
    "metal": "steel, iron, metallic, aluminium, aluminum, tin, chrome, zinc",
    "brass": "copper, bronze",
    "glass": "crystal, glassy, transparent",
    "plastic": "vinyl, rubber, lacquered",
    "grass": "grassy, mossy",
    "sand": "sandy, gravel, dirt, earthen, clay",
    "snow": "snowy, snow-covered, snowcapped, icy, snow-capped",
}
_HOURS: dict[Hour, str] = {
    "morning": "dawn, sunrise, daybreak, early morning",
    "noon": "midday, daytime, day, daylight, afternoon",
    "evening": "sunset, dusk, twilight, nightfall, golden hour, sundown, lamplight, candlelight, candlelit, firelight",
    "night": "midnight, moonlight, nighttime, moonlit, starry, dark night, night time",
}
_WEATHERS: dict[Weather, str] = {
    "clear": "sunny, bright, sunshine, blue sky, cloudless, sun, sunlight, sunlit",
    "cloudy": "clouds, partly cloudy, cloud",
    "overcast": "rainy, rain, stormy, storm, gloomy, dull, drizzle, thunderstorm, gray sky, grey sky",
    "fog": "foggy, mist, misty, haze, hazy",
}
_SEASONS = {"winter": "snow, snowing, snowfall, wintry", "autumn": "fall, autumnal", "summer": "summery", "spring": ""}
_BY_NUMBER = {
    1: "one single",
    2: "two pair couple both",
    3: "three several some few pile stack",
    4: "four group row herd flock",
    5: "five many lots rows",
    6: "six",
    7: "seven",
    8: "eight nine ten dozen dozens twelve",
}
NUMBERS = {word: number for number, line in _BY_NUMBER.items() for word in line.split()}
SHADES = {"dark": 0.55, "deep": 0.7, "light": 1.45, "pale": 1.5, "pastel": 1.5, "bright": 1.15}
_IRREGULAR = {"people": "person", "men": "man", "women": "woman", "children": "child", "mice": "mouse",
              "geese": "goose", "knives": "knife", "shelves": "shelf", "leaves": "leaf", "oxen": "ox",
              "wolves": "wolf", "loaves": "loaf", "scarves": "scarf"}  # fmt: skip
LINKS = {"made", "of", "in", "that", "which", "is", "are", "painted", "colored", "coloured", "all", "from", "covered"}
BREAKS = {"with", "on", "at", "near", "by", "beside", "behind", "under", "over", "above", "below", "next", "between",
           "around", "against", "to", "into", "through", "along", "across", "inside", "outside", "before", "front",
           "opposite", "full", "containing", "showing", "featuring", "where", "while", "has", "have", "having",
           "stands", "stand", "standing", "sits", "sitting", "lies", "lying", "parked", "hanging", "hangs", "holding",
           "there", "it", "its", "his", "her", "their", "from", "in", "of", "a", "an", "the", "this", "that", "these",
           "is", "are", "and", "or", "as", "for", "during", "after", "which", "made", "covered", "surrounded",
           "walking", "resting", "placed", "set", "running", "sleeping", "facing", "seen", "overlooking"}  # fmt: skip
PARTICIPLES = {
    "standing",
    "sitting",
    "lying",
    "hanging",
    "running",
    "walking",
    "sleeping",
    "front",
    "resting",
    "facing",
}
"""Adjectives where a noun follows: "a white standing desk"."""
WITHOUT = {"without", "no", "not", "nobody", "excluding"}
SILENT = {"scene", "view", "photo", "photograph", "image", "picture", "of", "very", "small", "big", "large", "little",
           "tiny", "huge", "old", "new", "modern", "tall", "long", "wide", "short", "round", "beautiful", "nice",
           "cozy", "cosy", "simple", "empty", "quiet", "time", "style", "colored", "coloured", "photorealistic",
           "realistic", "detailed", "middle", "center", "centre", "corner", "side", "top", "bottom", "background",
           "foreground", "front", "back", "distance", "line", "bunch", "piece", "i", "want", "please", "draw",
           "generate", "show", "me", "us", "we", "you", "lot", "pair", "stone-built", "sky", "light", "warm", "soft",
           "together", "other", "each", "another", "like", "made", "also", "just", "two-story", "end", "out", "off",
           "up", "down", "be", "being", "was", "were", "can", "them", "they", "he", "she", "who", "s"}  # fmt: skip


@cache
def color_words() -> dict[str, str]:
    """Each word for a color, and the name that Pillow knows."""
    found = {name: name for name in ImageColor.colormap}
    for line in _COLORS.split("; "):
        name, *words = line.split()
        found |= {word.replace("-", " "): name for word in [name, *words]}
    return found


@cache
def color_of(name: str, tone: float = 1.0) -> Rgb:
    """SRGB of a color's name, in [0, 1], darker or lighter by its tone."""
    red, green, blue = (value / 255 for value in ImageColor.getrgb(name)[:3])
    if tone > 1:
        share = 1 - 1 / tone
        red, green, blue = (value + share * (1 - value) for value in (red, green, blue))
    else:
        red, green, blue = (value * tone for value in (red, green, blue))
    return red, green, blue


@cache
def _lexicon() -> dict[str, dict[str, str]]:
    """Phrases of each kind, and what they mean."""

    def spread(lists: dict) -> dict[str, str]:
        return {word: name for name, line in lists.items() for word in [name, *(line.split(", ") if line else [])]}

    settings = {name: further for name, (_, further) in SETTINGS.items()}
    places = spread(settings)
    surfaces = {"walls": "wall, wallpaper, wainscot", "floor": "flooring, ground, floorboards, parquet, pavement"}
    return {
        "color": color_words(),
        "material": spread(_MATERIALS),
        "setting": places,
        "surface": spread(surfaces),
        "hour": spread(dict(_HOURS)),
        "weather": spread(dict(_WEATHERS)),
        "season": spread(_SEASONS),
        "thing": {word: name for word, name in thing_nouns().items() if word == name or word not in places},
    }


@dataclass(frozen=True)
class Phrase:
    """A phrase of the prompt: what kinds of word it can be, each with its meaning."""

    text: str
    means: dict[str, str]
    plural: bool = False


def _singular(word: str) -> Iterator[str]:
    """A word and what it may be the plural of."""
    yield word
    last = word.rsplit(" ", 1)
    head, tail = (last[0] + " ", last[1]) if len(last) == 2 else ("", word)
    if tail in _IRREGULAR:
        yield head + _IRREGULAR[tail]
    for ending, instead in (("s", ""), ("ies", "y"), ("ves", "f"), ("es", "")):
        if tail.endswith(ending) and len(tail) > len(ending) + 2 and not tail.endswith("ss"):
            yield head + tail[: -len(ending)] + instead


def _meanings(phrase: str) -> tuple[dict[str, str], bool]:
    """Kinds and meanings of a phrase, and whether it is a plural."""
    lexicon = _lexicon()
    for index, form in enumerate(_singular(phrase)):
        means = {kind: words[form] for kind, words in lexicon.items() if form in words}
        if means:
            return means, index > 0 or (form.endswith("s") and "thing" in means and form in ("grapes", "people"))
    return {}, False


def phrases(prompt: str) -> list[Phrase]:
    """The prompt in phrases, the longest that are known; punctuation as phrases of one sign."""
    tokens = re.findall(r"[a-z]+|[0-9]+|[,.;:!?]", prompt.lower().replace("-", " ").replace("'s ", " "))
    found, index = [], 0
    while index < len(tokens):
        for length in (3, 2, 1):
            phrase = " ".join(tokens[index : index + length])
            means, plural = _meanings(phrase)
            # A "white oak table" is a table: an adjective stays one.
            adjective = length > 1 and "color" not in means and {"color", "material"} & set(_meanings(tokens[index])[0])
            adjective = adjective and phrase not in said_phrases()  # but an "orange tree" bears oranges
            if length == 1 or (means and not adjective):
                break
        found.append(Phrase(phrase, means, plural))
        index += len(phrase.split())
    return found
