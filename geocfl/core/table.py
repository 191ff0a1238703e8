"""Tables as aligned plain text, for terminals and logs."""

from __future__ import annotations

from collections.abc import Sequence


def align(lines: Sequence[Sequence[str]], text_columns: Sequence[int] = ()) -> str:
    """Lines of cells in columns, the first line ruled off as their titles; no newline at the end.

    Args:
        lines: Titles, then rows of as many cells.
        text_columns: Columns that are aligned at the left; others, of numbers, at the right.
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
