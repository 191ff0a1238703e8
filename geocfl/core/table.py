"""Tables as aligned plain text, for terminals and logs."""

from __future__ import annotations

from collections.abc import Sequence


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
