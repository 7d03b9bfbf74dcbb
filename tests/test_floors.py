"""Imports go downward only (architecture.md, "Floors"), and what must start fast imports nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"hw1", "vectors", "files", "_malloc"},
    {"curvature", "landscape", "models", "data", "optim", "plots"},
    {"training", "callbacks"},
    {"runs"},
    {"studies", "report"},
    {"hydra_plugins", "__main__", "command", "train"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# What a room must not know, besides the floors above it.
UNKNOWN = {
    "plots": {"torch", "lightning", "torchmetrics", "torchvision"},
    "curvature": {"lightning", "hydra", "omegaconf"},
    "landscape": {"lightning", "hydra", "omegaconf"},
    "vectors": {"lightning", "hydra", "omegaconf"},
}
DICT_CONFIG = {"train.py", "src/hw1/runs.py", "src/hw1/training/build.py", "src/hydra_plugins/hw1_sweeper/sweeper.py"}
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
    """Dotted names of all imports: also those inside functions and under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("file", FILES)
def test_imports_go_downward(file):
    own = room(file.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    for name in imports(FILES[file]):
        other = room(name)
        assert other not in UNKNOWN.get(own, ()), f"{own} imports {name}"
        if name.partition(".")[0] in ("hw1", "hydra_plugins") and other != own:
            # Rooms of floor 1 stand side by side; on a higher floor one room may use its neighbour.
            least = FLOOR[own] - 1 if FLOOR[own] == 1 else FLOOR[own]
            assert FLOOR[other] <= least, f"{own} (floor {FLOOR[own]}) imports {name} (floor {FLOOR[other]})"


def test_a_config_object_stays_at_the_door():
    users = {
        file
        for file, tree in FILES.items()
        for node in ast.walk(tree)
        if "DictConfig" in (getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None))
    }
    assert users <= DICT_CONFIG


LIGHT = [
    "hw1.data.source",
    "hw1.files",
    "hw1.runs",
    "hw1.training.identity",
    "hw1.training.construct",
    "hw1.studies.protocol",
    "hw1.studies.flatness_interp",
    "hw1.studies.flatness_sensitivity",
    "hw1.studies.simulate_function",
    "hw1.studies.weight_trajectories",
    "hw1.training.budget",
    "hw1.report.claims",
    "hw1.report.conclude",
    "hw1.report.finished",
    "hw1.report.homework",
    "hw1.report.results",
    "hw1.report.statistic",
    "hydra_plugins.hw1_sweeper.listing",
    "hydra_plugins.hw1_sweeper.sweeper",
    "hw1.command",
    "hw1.__main__",
]


@pytest.mark.parametrize("module", LIGHT)
def test_what_starts_fast_imports_nothing_heavy(module):
    heavy = "{'torch', 'lightning', 'pandas', 'matplotlib', 'torchvision', 'sklearn', 'scipy'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_help_imports_neither_hydra_nor_torch(tmp_path):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['train.py', '--help']; runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
        "sys.exit(str(sorted({'hydra', 'omegaconf', 'torch', 'lightning', 'pandas'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stderr.strip() == "[]" and done.stdout.startswith("usage: python train.py ")
    assert sum(line.startswith("  python train.py ") for line in done.stdout.splitlines()) == 3
