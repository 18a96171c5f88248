"""How much of what prompts ask for is in the worlds that are drawn of them.

    recipes/prompt_scores.py recipes/prompts/first.json

The prompts and their labels were written apart from the code, without a look at its word lists; each label is the plain
noun for a thing that must be visible, and its basic color where one is asked for. A label counts where the world's own
record holds the kind that the noun stands for, in such a color, in sight.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import tyro

from lyra.errors import LyraError
from lyra.files.tables import print_rows
from lyra.worlds.commissions import Shown, draw_commission
from lyra.worlds.nouns import thing_nouns

COLORS = {
    "red": "red crimson maroon",
    "green": "green darkgreen olive lightgreen",
    "blue": "blue royalblue navy skyblue",
    "yellow": "gold yellow",
    "orange": "orange",
    "purple": "purple indigo violet",
    "pink": "hotpink lightpink pink salmon",
    "brown": "saddlebrown brown",
    "beige": "tan beige ivory",
    "white": "white",
    "gray": "gray grey",
    "black": "black",
    "turquoise": "turquoise teal",
    "gold": "gold",
    "silver": "silver gray",
}
"""The colors' names that pass for a basic one."""
TREES = ("tree", "conifer", "palm")


def fits(shown: Shown, thing: str, color: str | None) -> bool:
    """Whether a thing in the world is what a label asks for."""
    kind = thing_nouns().get(thing, thing)
    same = shown.name == kind or (kind == "tree" and shown.name in TREES)
    return same and (color is None or shown.color in COLORS[color].split()) and shown.in_sight


def main(
    prompts: tyro.conf.Positional[Path],
    seed: int = 0,
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Draws every prompt at 256 x 192, and prints what is missed and the share that is there."""
    found = total = 0
    for entry in json.loads(prompts.read_text()):
        try:
            shown = draw_commission(entry["prompt"], seed, 192, 256).shown
        except LyraError as error:
            print(error, file=sys.stderr)
            shown = ()
        for label in entry["expect"]:
            there = any(fits(thing, label["thing"], label["color"]) for thing in shown)
            found, total = found + there, total + 1
            if not there:
                print(f"missed: {label['color'] or ''} {label['thing']} in {entry['prompt']!r}", file=sys.stderr)
    print_rows([{"set": prompts.stem, "labelled things": total, "drawn": found, "share": found / total}], json_)


if __name__ == "__main__":
    tyro.cli(main)
