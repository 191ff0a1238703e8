"""The parts of a self-contained report page: sections, tables and figures."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

CSS = """
:root { --ink: #222; --muted: #6b7280; --line: #e5e7eb; --accent: #1d4e9e; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.5rem 4rem; color: var(--ink); background: #fff;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .7rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
p { margin: .4rem 0; } .muted, figcaption { color: var(--muted); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.2rem, 1fr)); gap: .8rem; margin: 1.4rem 0 0;
  padding: 0; list-style: none; }
.cards li { padding: .7rem .9rem; border: 1px solid var(--line); border-radius: .5rem; }
.cards b { display: block; font-size: 1.5rem; line-height: 1.2; color: var(--accent); }
figure { margin: 1rem 0 1.8rem; } figure img { display: block; max-width: 100%; margin: 0 auto; }
figcaption { font-size: .9rem; margin-top: .4rem; text-align: center; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .95rem; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; white-space: nowrap; } th { font-weight: 600; }
thead th { border-bottom: 2px solid var(--muted); vertical-align: bottom; }
tfoot td { font-weight: 600; border-bottom: 0; border-top: 2px solid var(--muted); }
table.facts td { text-align: left; vertical-align: top; overflow-wrap: anywhere; }
table.facts td:first-child { color: var(--muted); width: 14rem; }
.code { display: inline-block; min-width: 1.8em; }
.swatch { display: inline-block; width: .85em; height: .85em; margin-right: .5em; border-radius: .15em;
  border: 1px solid rgba(0, 0, 0, .25); vertical-align: -.05em;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
@media screen and (max-width: 44rem) { body { padding: 1.2rem 1rem 3rem; } table { font-size: .85rem; }
  th, td { padding: .3rem .45rem; } table.facts td:first-child { width: 8rem; white-space: normal; }
  figure img { max-width: none; width: 40rem; } }
@page { size: A4; margin: 16mm; }
@media print { html { font-size: 9pt; } body { max-width: none; padding: 0; } h2, thead { break-after: avoid; }
  figure, tr, .cards, tfoot { break-inside: avoid; } figure img { max-height: 150mm; }
  .per_class img, .reliability img { max-height: 100mm; } .gallery img, .samples img { max-height: 215mm; } }
"""


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page; empty parts are left out."""
    return (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        f"<title>{text(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def cards(values: Iterable[tuple[str, str]]) -> str:
    """Large numbers, each with what it is."""
    return "<ul class='cards'>" + "".join(f"<li><b>{value}</b>{text(word)}</li>" for value, word in values) + "</ul>"


def swatch(color: str) -> str:
    """A small square of a color."""
    return f"<span class='swatch' style='background:{color}'></span>"


def section(title: str, *parts: str) -> str:
    """A section with a heading; empty parts are left out."""
    body = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{text(title)}</h2>\n{body}\n</section>"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], total: Sequence[str] = ()) -> str:
    """A table; the texts of its cells are HTML."""
    head = "".join(f"<th scope='col'>{title}</th>" for title in titles)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    foot = "<tfoot><tr>" + "".join(f"<td>{cell}</td>" for cell in total) + "</tr></tfoot>" if total else ""
    whole = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>{foot}\n</table>"
    return f"<div class='scroll'>{whole}</div>"


def facts(values: Mapping[str, Any]) -> str:
    """Names and values as a table."""
    rows = "\n".join(
        f"<tr><td>{text(name.replace('_', ' '))}</td><td>{text(shown(value))}</td></tr>"
        for name, value in values.items()
    )
    return f"<table class='facts'><tbody>\n{rows}\n</tbody></table>"


def shown(value: Any) -> str:
    """A value of a setting in words."""
    if isinstance(value, Mapping):
        parts = (
            f"{name} ({shown(item)})" if isinstance(item, Mapping) else f"{name} {shown(item)}"
            for name, item in value.items()
        )
        return ", ".join(parts)
    if isinstance(value, list | tuple):
        return ", ".join(shown(item) for item in value)
    if value is None or isinstance(value, bool):
        return {None: "default", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def figure(name: str, image: str, caption: str) -> str:
    """A picture, as a data URI or address, with a caption that is its alternative text too."""
    words = text(caption)
    picture = f"<div class='scroll'><img src='{image}' alt='{words}'></div>"
    return f"<figure class='{name}'>{picture}<figcaption>{words}</figcaption></figure>"


def text(value: object) -> str:
    """A value as HTML."""
    return html.escape(str(value))
