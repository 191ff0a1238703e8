"""LaTeX in pages becomes MathML while the site is built: browsers draw it without a script or a font of ours."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

# What pymdownx.arithmatex makes of $...$ and of $$...$$ with `generic: true`.
_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """The page's HTML, its equations as MathML."""
    return _EQUATION.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    latex = html.unescape(match[2])
    if match[1] == "span":
        return str(convert(latex))
    return f'<div class="equation">{convert(latex, display="block")}</div>'
