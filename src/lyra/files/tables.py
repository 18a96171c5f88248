"""Rows of numbers as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from lyra.files.strict_json import to_json


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Right-aligned columns under their names; what a row lacks is a dash."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in cells)


def print_rows(rows: Sequence[Mapping[str, Any]], json: bool) -> None:
    """Prints rows as a table, or as one JSON object."""
    print(to_json({"rows": rows}) if json else format_table(rows))


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
