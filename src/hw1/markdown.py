"""Text from results in Markdown: as text, whatever it holds. No torch."""

from __future__ import annotations

import re
from urllib.parse import quote

from hw1.words import printable

_MARKS = re.compile(r"[\\`*<>|$~&]|\](?=[(\[:])|(?<!\w)_|_(?!\w)")  # a bracket opens nothing that is not closed


def text(value: object) -> str:
    r"""A value as one line of text.

    Example:
        >>> print(text("<img src=x onerror=a()> [here](javascript:b) | loss_of_x"))
        \<img src=x onerror=a()\> [here\](javascript:b) \| loss_of_x
    """
    return _MARKS.sub(lambda mark: f"\\{mark[0]}", printable(str(value)))


def code(value: object) -> str:
    r"""A value as code in one line, in a table too.

    Example:
        >>> print(code("seed=1,2"), code("a`|`b"))
        `seed=1,2` `` a`\|`b ``
    """
    shown = printable(str(value))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    inside = f" {shown} " if "`" in shown else shown
    return f"{fence}{inside}{fence}".replace("|", "\\|")


def address(path: str) -> str:
    """A path as the target of a link.

    Example:
        >>> address("claims/a b)(.png"), address("javascript:x")
        ('claims/a%20b%29%28.png', 'javascript%3Ax')
    """
    return quote(path, safe="/=+,-._~")
