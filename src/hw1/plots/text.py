"""Text in figures of hw1's own, as text: names and settings in it may be a stranger's."""

from __future__ import annotations

import re

from matplotlib.figure import Figure
from matplotlib.text import Text

from hw1.words import printable

# The formulas that hw1's figures show; what else stands between two dollars is no formula.
FORMULAS = (r"$\alpha$", r"$(1-\alpha)\,\theta_1+\alpha\,\theta_2$", "$l_2$")
_OF_TICKS = re.compile(r"\$[^$]*\\mathdefault\{[^$]*\$")


def as_text(figure: Figure) -> None:
    """Have a figure show its words as they are: no TeX but hw1's own, no control characters (SVG holds none)."""
    for artist in figure.findobj(Text):
        assert isinstance(artist, Text)
        words = artist.get_text()
        if not words.replace("\n", "").isprintable():
            artist.set_text("\n".join(map(printable, words.split("\n"))))
        left = _OF_TICKS.sub("", words)
        for formula in FORMULAS:
            left = left.replace(formula, "")
        if "$" in left:
            artist.set_parse_math(False)
