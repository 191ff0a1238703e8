"""Tables as aligned plain text, for terminals and logs; and texts in CSV files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What spreadsheets take for the beginning of a formula."""


def align(lines: Sequence[Sequence[str]], text_columns: Sequence[int] = ()) -> str:
    """Aligns cells in columns, with a rule below the titles and no newline at the end.

    Args:
        lines: Titles, then rows with as many cells.
        text_columns: Columns that are aligned left; the others, with numbers, are aligned right.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.ljust(width) if index in text_columns else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "  ".join("-" * width for width in widths), *text[1:]])


def spreadsheet_text(value: Any) -> Any:
    """A value for a cell of a CSV file; an apostrophe before a text keeps spreadsheets from running it as a formula.

    Args:
        value: Any value; numbers, and texts that are numbers, such as ``"-5"``, stay as they are.
    """
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
