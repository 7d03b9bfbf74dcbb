"""What a run was made with, for its record: versions and the commit."""

import functools
import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from hw1 import __version__

_CHECKOUT = Path(__file__).resolve().parents[3]


def versions() -> dict[str, str]:
    """Of Python, hw1 and what it trains with."""
    packages = ("torch", "torchvision", "lightning", "torchmetrics", "numpy")
    installed = {name: version(name) for name in packages}
    return {"python": platform.python_version(), "hw1": __version__, **installed}


@functools.cache
def versions_here() -> Mapping[str, str]:
    """Of what this process trains with, hw1's own source among it, as they were when it was first asked."""
    source = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        source.update(file.read_bytes())
    return {**versions(), "hw1's source": source.hexdigest()[:16]}


def commit() -> str | None:
    """The commit of hw1's own checkout, with + where files differ from it; None where hw1 runs from none.

    Git is asked of that folder alone, never of the current one or of one that is read: what a repository's
    configuration names is run. It is asked without the monitor and the hooks, and takes no lock.
    """
    git = _CHECKOUT / ".git"
    if not git.exists():
        return None
    safe = ["-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}", "-c", "core.pager=cat"]
    where = ["-C", str(_CHECKOUT), "--no-pager"]
    asked = ["describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CEILING_DIRECTORIES": str(_CHECKOUT.parent),
    }
    try:
        done = subprocess.run(
            ["git", *where, *safe, *asked], capture_output=True, text=True, timeout=10, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
