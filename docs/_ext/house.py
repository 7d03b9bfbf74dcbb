"""The drawing of the house, from the table of floors in CONTRIBUTING.md: an SVG in the page, in its colours."""

import re
import textwrap
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \|$", re.MULTILINE)
WIDTH, HEIGHT, LEFT, PER_LINE = 760, 46, 44, 6


def floors(text: str) -> list[tuple[int, list[str], str]]:
    """(number, rooms, what they hold) of each floor, from the ground up."""
    return [(int(number), re.findall(r"`([^`]+)`", rooms), holds) for number, rooms, holds in _ROW.findall(text)]


def drawing(house: list[tuple[int, list[str], str]]) -> str:
    """The SVG: a box a room, the top floor above."""
    parts, y = [], 8
    for number, rooms, holds in reversed(house):
        lines = [rooms[start : start + PER_LINE] for start in range(0, len(rooms), PER_LINE)]
        parts.append(f'<text class="floor" x="16" y="{y + 24}">{number}</text>')
        for line in lines:
            width = (WIDTH - LEFT - 8) / len(line)
            for place, room in enumerate(line):
                x = LEFT + place * width
                parts.append(f'<rect x="{x:.1f}" y="{y}" width="{width - 8:.1f}" height="{HEIGHT - 12}" rx="4"/>')
                parts.append(
                    f'<text x="{x + width / 2 - 4:.1f}" y="{y + 22}" text-anchor="middle">{escape(room)}</text>'
                )
            y += HEIGHT - 6
        for line in textwrap.wrap(holds, 108):
            parts.append(f'<text class="holds" x="{LEFT}" y="{y + 8}">{escape(line)}</text>')
            y += 15
        y += 12
    title = "The rooms of hw1, floor by floor: each imports from floors below it only"
    return (
        f'<svg class="house" role="img" viewBox="0 0 {WIDTH} {y}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{title}</title>{''.join(parts)}</svg>"
    )


class House(SphinxDirective):
    """```{house}```: the drawing."""

    def run(self) -> list[nodes.Node]:
        """One raw node."""
        file = Path(self.env.srcdir).parent / "CONTRIBUTING.md"
        self.env.note_dependency(str(file))
        house = floors(file.read_text(encoding="utf-8"))
        if not house:
            raise self.error(f"{file}: got no table of floors, expected rows `| 0 | `room`, ... | what it holds |`")
        return [nodes.raw("", drawing(house), format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """The directive `house`."""
    app.add_directive("house", House)
    return {"parallel_read_safe": True}
