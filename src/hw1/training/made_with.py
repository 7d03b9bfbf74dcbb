"""What a run was made with, for its record: versions and the commit."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from hw1 import __version__


def versions() -> dict[str, str]:
    """Of Python, hw1 and what it trains with."""
    packages = ("torch", "torchvision", "lightning", "torchmetrics", "numpy")
    installed = {name: version(name) for name in packages}
    return {"python": platform.python_version(), "hw1": __version__, **installed}


def commit() -> str | None:
    """The commit of the checkout, with + where files differ from it; None outside a checkout."""
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
