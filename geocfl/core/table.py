"""Tables as aligned plain text, for terminals and logs; and as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geocfl.errors import DataError

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What spreadsheets take for the beginning of a formula."""
SEPARATORS = ",;\t"
"""Between the fields of a CSV file; spreadsheets write semicolons where the decimal separator is a comma."""


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


def read_csv(path: Path, columns: Sequence[str], remedy: str, page: str = "") -> list[dict[str, str]]:
    """Reads a CSV file whose first line names its columns.

    Args:
        path: File in UTF-8, with or without a byte order mark. The separator that is most frequent in its first line
            separates its fields: commas, semicolons or tabs.
        columns: Columns that it must have.
        remedy: What the file should be, for messages, such as ``"pass a crosswalk"``.
        page: Page of the documentation, for messages.

    Returns:
        The fields of these columns in each row, without spaces around them; empty where a row is too short.

    Raises:
        DataError: It cannot be read, or lacks a column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        separator = max(SEPARATORS, key=text.partition("\n")[0].count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
        rows = [{str(name).strip(): value for name, value in row.items()} for row in reader]
        names = [name.strip() for name in reader.fieldnames or ()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text in UTF-8; {remedy}, saved as CSV UTF-8", page=page) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {remedy}", page=page) from error
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}); {remedy}", page=page) from error
    for column in columns:
        if column not in names:
            raise DataError(f"{path}: has no column {column}; {remedy}", page=page)
    return [{column: (row[column] or "").strip() for column in columns} for row in rows]
