"""HTML of results in notebooks: small tables, with the color of a class beside its name."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

Line = tuple[str | None, Sequence[str]]
"""Color (``"#rrggbb"``) of a line's swatch, if it has one, and its cells."""

_LEFT, _RIGHT = "text-align:left", "text-align:right;font-variant-numeric:tabular-nums"


def html_table(titles: Sequence[str], lines: Sequence[Line], *, caption: str = "", text_columns: int = 1) -> str:
    """A table as HTML; texts are escaped.

    Args:
        titles: Titles of the columns.
        lines: Colors and cells; a swatch of the color stands before the first cell.
        caption: Line above the table.
        text_columns: How many columns, from the left, are text; the others are numbers.
    """

    def row(cells: Sequence[str], tag: str) -> str:
        styles = [_LEFT if index < text_columns else _RIGHT for index in range(len(cells))]
        return "".join(f'<{tag} style="{style}">{cell}</{tag}>' for cell, style in zip(cells, styles, strict=True))

    body = []
    for color, cells in lines:
        shown = [escape(cell) for cell in cells]
        body.append(row([swatch(color) + shown[0], *shown[1:]] if color else shown, "td"))
    head = f"<thead><tr>{row([escape(title) for title in titles], 'th')}</tr></thead>"
    rows = "".join(f"<tr>{line}</tr>" for line in body)
    return f"{paragraph(caption)}<table>{head}<tbody>{rows}</tbody></table>"


def swatch(color: str) -> str:
    """A small square of a color."""
    return (
        '<span style="display:inline-block;width:1em;height:1em;margin-right:.5em;vertical-align:-.15em;'
        f'border:1px solid #8888;background:{escape(color)}"></span>'
    )


def paragraph(text: str) -> str:
    """Text as a paragraph; empty if the text is."""
    return f"<p>{escape(text)}</p>" if text else ""
