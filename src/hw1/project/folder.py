"""What a folder of the user's own gives to a command: modules to import. Its conf/ and results are `hw1.job`'s.

`hw1 train` and `hw1 adopt` run the code of the folder that they are started in, as `python script.py` does. Commands
that read what lies there, which may be somebody else's, take no code from it, unless it is one of the user's projects:
one that `hw1 init` or `hw1 trust` has signed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hw1.terminal import say
from hw1.trust.projects import is_project
from hw1.typed import program

PLUGINS = "hydra_plugins"


def hint(folder: Path) -> str:
    """What to say of modules and settings in a folder that is no project of the user's; "" where there are none."""
    lying = [name for name in ("conf",) if (folder / name).is_dir()]
    lying += sorted(file.name for file in folder.glob("*.py") if file.name not in ("train.py", "setup.py"))[:3]
    if not lying:
        return ""
    return f"{folder}: {', '.join(lying)} not taken: no project of yours; {program()} trust {folder} if it is"


def has_plugins(folder: Path) -> bool:
    """Whether a folder holds what Hydra imports at every start, from wherever Python finds it."""
    return any(path.name.partition(".")[0] == PLUGINS for path in folder.glob(f"{PLUGINS}*"))


def importable(folder: Path) -> None:
    """Let this process, and those that it starts, import the modules of a folder, before any others of their names."""
    name = str(folder)
    if name not in sys.path:
        sys.path.insert(0, name)
    known = os.environ.get("PYTHONPATH")
    if name not in (known or "").split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join([name, known] if known else [name])


def enter(folder: Path, *, runs_code: bool) -> None:
    """Let a command take modules from the folder that it is started in, or see to it that it does not.

    Args:
        folder: the current one.
        runs_code: whether the command is there to run the user's code.
    """
    foreign = runs_code and has_plugins(folder) and not is_project(folder)
    if foreign:
        say(
            f"{folder / PLUGINS}: got plugins, which Hydra would run as it starts, in a folder that is no project of "
            f"yours; nothing of the folder is imported: {program()} trust {folder} if it is",
            file=sys.stderr,
        )
    if runs_code and not foreign:
        importable(folder)
        return
    if _put_there_by_python(folder):
        del sys.path[0]
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if "PYTHONPATH" in os.environ and "" in places and not _has_hw1(folder):
        # An empty part, as `export PYTHONPATH=$PYTHONPATH:mine` makes one, is the current folder to Python.
        kept = [place for place in places if place]
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)  # for processes that this one starts
        if not any(Path(place).resolve() == folder.resolve() for place in kept):
            sys.path[:] = [place for place in sys.path if place not in ("", str(folder))]


def _put_there_by_python(folder: Path) -> bool:
    """Whether `python -m` has put the current folder first on the path; not if hw1 itself is found by it."""
    first = sys.path[0] if sys.path else None
    by_m = Path(sys.argv[0]).parts[-2:] == ("hw1", "__main__.py") and not sys.flags.safe_path
    return by_m and first == str(folder) and not _has_hw1(folder)


def _has_hw1(folder: Path) -> bool:
    """Whether hw1 itself is found in a folder."""
    return Path(__file__).resolve().parents[2] == folder.resolve()
