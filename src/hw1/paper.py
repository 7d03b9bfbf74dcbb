"""What all pages share: their style sheet, and figures inside them. No torch."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path


def style() -> str:
    """The style sheet of all pages."""
    return files("hw1").joinpath("page.css").read_text(encoding="utf-8")


def image(folder: Path, file: str, captions: Mapping[str, str], title: str) -> dict[str, str]:
    """A figure as it stands in a page: name, caption, alt (what it is of, for those who do not see it), data, vector.

    Args:
        folder: where it is.
        file: `<name>.png`, with `<name>.svg` beside it.
        captions: how to read a figure, by the beginning of its name; the longest that fits.
        title: of what it belongs to.
    """
    name = file.removesuffix(".png")
    start = max((start for start in captions if name.startswith(start)), key=len, default="")
    return {
        "name": name,
        "caption": captions.get(start, ""),
        "alt": f"Figure {name.replace('_', ' ')} of {title}",
        "data": base64.b64encode((folder / file).read_bytes()).decode(),
        "vector": f"{name}.svg",
    }
