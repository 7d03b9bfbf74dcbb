"""Imports go downward only, as CONTRIBUTING.md draws them, and what must start fast imports nothing heavy."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"hw1", "vectors", "files", "seeds", "kinds", "losses", "metrics", "words", "models", "optim", "records", "sealed"}
    | {"_before_torch", "bounds", "cells", "inside", "lease", "lease_file", "machine", "markdown", "memory"}
    | {"news", "on_first_use", "preemption"}
    | {"paper", "record_shapes", "stages", "stored_csv", "stored_json", "tensor_files", "terminal", "typed", "workers"},
    {"risk", "settings", "data", "plots"},
    {"curvature", "landscape", "training", "trust"},
    {"runs"},
    {"measures", "recording"},
    {"callbacks", "studies"},
    {"report", "reproduction"},
    {"hydra_plugins", "__main__", "adopt", "arguments", "command", "explaining", "help", "slips", "sweep_words"}
    | {"environment", "job", "project", "replaced", "train", "python", "child", "notebook", "upkeep"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
HEAVY = ("torch", "lightning", "torchmetrics", "torchvision", "pandas", "matplotlib", "sklearn", "scipy")
# What a room must not know, besides the floors above it.
UNKNOWN = {
    "plots": {"torch", "lightning", "torchmetrics", "torchvision"},
    "risk": {"lightning", "hydra", "omegaconf"},
    "curvature": {"lightning", "hydra", "omegaconf"},
    "landscape": {"lightning", "hydra", "omegaconf"},
    "vectors": {"lightning", "hydra", "omegaconf"},
    "settings": {"torch", "lightning", "hydra", "omegaconf"},
    "training": {"pandas", "hydra", "omegaconf"},
}
# Rooms of one floor of which one uses the other, never the other way.
BESIDE = {
    ("hw1", "_before_torch"),
    ("hw1", "on_first_use"),
    ("losses", "kinds"),
    ("records", "files"),
    ("inside", "records"),
    ("paper", "inside"),
    ("records", "record_shapes"),
    ("records", "stored_json"),
    ("stored_json", "bounds"),
    ("files", "bounds"),
    ("sealed", "bounds"),
    ("tensor_files", "bounds"),
    ("memory", "bounds"),
    ("memory", "machine"),
    ("stored_csv", "bounds"),
    ("inside", "bounds"),
    ("models", "bounds"),
    ("stored_csv", "memory"),
    ("stored_csv", "records"),
    ("files", "lease"),
    ("lease", "lease_file"),
    ("lease", "machine"),
    ("lease", "preemption"),
    ("stages", "preemption"),
    ("workers", "preemption"),
    ("words", "metrics"),
    ("paper", "typed"),
    ("paper", "words"),
    ("stages", "words"),
    ("terminal", "words"),
    ("markdown", "words"),
    ("reproduction", "report"),
    ("training", "trust"),
    ("__main__", "command"),
    ("__main__", "arguments"),
    ("__main__", "adopt"),
    ("adopt", "command"),
    ("arguments", "help"),
    ("command", "help"),
    ("command", "slips"),
    ("command", "explaining"),
    ("explaining", "slips"),
    ("child", "explaining"),
    ("hydra_plugins", "explaining"),
    ("__main__", "explaining"),
    ("__main__", "upkeep"),
    ("job", "slips"),
    ("command", "replaced"),
    ("hydra_plugins", "replaced"),
    ("command", "sweep_words"),
    ("sweep_words", "help"),
    ("slips", "help"),
    ("job", "help"),
    ("job", "environment"),
    ("hydra_plugins", "environment"),
    ("__main__", "job"),
    ("__main__", "project"),
    ("job", "command"),
    ("adopt", "job"),
    ("train", "job"),
    ("train", "project"),
    ("hydra_plugins", "command"),
    ("hydra_plugins", "help"),
    ("python", "notebook"),
    ("child", "__main__"),
    ("child", "command"),
}
DOOR = "src/hw1/__init__.py"  # what it names for type checkers is loaded when it is asked for
DICT_CONFIG = {
    "train.py",
    "src/hw1/runs/run.py",
    *(f"src/hydra_plugins/hw1_sweeper/{n}.py" for n in ("composing", "measuring", "planning", "sweeper")),
}
FILES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in [*(ROOT / "src").rglob("*.py"), ROOT / "train.py"]
}


def room(dotted):
    """hw1.models.cnn -> models; hw1 alone and the names defined in it -> hw1."""
    parts = dotted.split(".")
    if parts[0] != "hw1":
        return parts[0]
    return parts[1] if len(parts) > 1 and not (parts[1].startswith("__") and parts[1] != "__main__") else "hw1"


def imports(tree):
    """Dotted names of all imports: also those inside functions and under TYPE_CHECKING, but for those of the door."""
    for node in ast.walk(tree) if tree is not FILES[DOOR] else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_of(file):
    """(the room that a file stands in, (other room, name) of all that it imports from hw1 and its plugins)."""
    own = room(file.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    names = [name for name in imports(FILES[file]) if name.partition(".")[0] in ("hw1", "hydra_plugins")]
    return own, [(room(name), name) for name in names if room(name) != own]


@pytest.mark.parametrize("file", FILES)
def test_imports_go_downward(file):
    own, others = rooms_of(file)
    for name in imports(FILES[file]):
        assert name.partition(".")[0] not in UNKNOWN.get(own, ()), f"{own} imports {name}"
    for other, name in others:
        assert FLOOR[other] <= FLOOR[own], f"{own} (floor {FLOOR[own]}) imports {name} (floor {FLOOR[other]})"


def test_no_rooms_import_each_other():
    arrows = {}
    for file in FILES:
        own, others = rooms_of(file)
        arrows.setdefault(own, set()).update(other for other, _ in others)
    order = list(TopologicalSorter(arrows).static_order())  # raises CycleError, with the rooms of the circle
    assert set(order) <= set(FLOOR)
    beside = {(own, other) for own, others in arrows.items() for other in others if FLOOR[own] == FLOOR[other]}
    assert beside <= BESIDE, beside - BESIDE


def test_long_files_say_why():
    for file, tree in FILES.items():
        lines = len((ROOT / file).read_text(encoding="utf-8").splitlines())
        said = ast.get_docstring(tree) or ""
        assert lines <= 300 or re.search(r"300 lines|longer than|One file|one file", said), f"{file}: {lines} lines"


def test_a_config_object_stays_at_the_door():
    users = {
        file
        for file, tree in FILES.items()
        for node in ast.walk(tree)
        if "DictConfig" in (getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None))
    }
    assert users <= DICT_CONFIG


# What runs before the first training, and all that is only read: no module of these rooms loads anything heavy, and of
# data only what decides where examples come from.
LIGHT_ROOMS = ("settings", "trust", "runs", "measures", "studies", "report", "reproduction", "hydra_plugins")
LIGHT_MODULES = (
    *("files", "lease", "lease_file", "machine", "news", "stages", "terminal", "workers", "seeds", "kinds", "metrics"),
    *("inside", "cells", "markdown", "preemption"),
    *(
        "typed",
        "words",
        "arguments",
        "child",
        "command",
        "explaining",
        "help",
        "slips",
        "job",
        "__main__",
        "notebook",
        "python",
    ),
    *("data.source", "project.folder", "project.start"),
)
LIGHT = [
    file.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    for file in FILES
    if any(f"/{name}/" in f"/{file}" for name in LIGHT_ROOMS)
    or file in [f"src/hw1/{name.replace('.', '/')}.py" for name in LIGHT_MODULES]
]


def test_what_starts_fast_imports_nothing_heavy():
    """One interpreter imports them one after another, and names the first that brings something heavy."""
    code = (
        "import sys, importlib\n"
        f"for name in {LIGHT!r}:\n"
        "    importlib.import_module(name)\n"
        f"    if heavy := sorted(set({HEAVY!r}) & set(sys.modules)):\n"
        "        sys.exit(f'{name} imports {heavy}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and len(LIGHT) > 40


def test_what_skips_finished_runs_loads_no_study_no_measure_and_nothing_that_downloads():
    """With them, giving a finished sweep's words again took 0.77 CPU s instead of 0.61 to 0.66."""
    code = (
        "import sys, hw1.command, hw1.report.conclude, hw1.measures.take, hydra_plugins.hw1_sweeper.sweeper\n"
        "from hw1.data.identities import cache_folder\n"
        "cache_folder()\n"
        "unneeded = {'asyncio', 'pooch', 'tqdm', 'hw1.studies.flatness_interp', 'hw1.measures.sharpness'}\n"
        "sys.exit(str(sorted(unneeded & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "[]\n"


def test_the_door_loads_what_it_is_asked_for_and_no_more():
    code = (
        "import sys, hw1\n"
        "assert not {'hw1.runs', 'hw1.settings', 'hw1.python'} & set(sys.modules)\n"
        "from hw1 import ConfigError, Run, Sweep, measure, plan, train\n"
        "import hw1.report\n"
        "assert {'train', 'Sweep', 'record'} <= set(dir(hw1)) and not hasattr(hw1, 'nothing')\n"
        f"sys.exit(str(sorted(set({HEAVY!r}) & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "[]\n"


def test_the_classes_of_data_are_read_without_torch():
    code = (
        "import sys\nfrom hw1.data import Cifar10, Digits, FashionMnist, Function, ImageFolder, Mnist, MnistMean\n"
        "print(Mnist.kind, Mnist.large, MnistMean.kind, Digits.kind, Function.kind, Mnist.choose_source is not None)\n"
        "sys.exit(str(sorted({'torch', 'torchvision', 'lightning'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("classes True values classes values True\n", "[]\n")


def test_the_help_imports_neither_hydra_nor_torch(tmp_path):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['train.py', '--help']; runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
        "sys.exit(str(sorted({'hydra', 'omegaconf', 'torch', 'lightning', 'pandas'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stderr.strip() == "[]" and done.stdout.startswith("usage: python train.py ")
    assert sum(line.startswith("  python train.py ") for line in done.stdout.splitlines()) == 3
