"""The commands of the pages on one's own work, typed as they stand: what they would train is said, not trained."""

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / "docs" / f"{name}.md" for name in ("models", "data", "training", "trainer", "sweeps")),
    ROOT / "README.md",
]
# What a page needs that is not at hand here: a package, a download, the user's hardware.
ELSEWHERE = {
    "dataset=cifar10": "CIFAR-10", "timm.create_model": "timm", "dataset=torchvision": "a download",
    "trainer=mps": "Apple",
    "shakespeare.txt": "a text of the reader's", "hydra.sweeper.search": "Optuna", "hydra/launcher=": "a launcher",
    "trainer=gpu": "a GPU", "logger=wandb": "wandb", "logger=mlflow": "mlflow", "logger=many": "several loggers",
    "image_folder": "a folder of the reader's",
}  # fmt: skip
MINE = {
    "my_package.py": "from torch import nn\n\n\ndef make_network(in_shape, out_features, depth):\n"
    "    size = in_shape[0] * in_shape[1] * in_shape[2]\n"
    "    hidden = [nn.Linear(size, size) for _ in range(depth)]\n"
    "    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(size, out_features))\n",
    "my_rates.py": "def halved(epoch):\n    return 0.5**epoch\n",
}


def commands(page):
    """Lines of a page that train, with those that they go on in."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^(?:    )?(python train\.py [^\n`]+)$", text, re.MULTILINE)
    return [re.sub(r"\s{2,}#.*", "", line) for line in found]


TYPED = [(page.stem, line) for page in PAGES for line in commands(page)]
HERE = [
    pytest.param(line, id=f"{page}: {line[16:70]}", marks=[] if number % 30 == 0 else [pytest.mark.slow])
    for number, (page, line) in enumerate(TYPED)
    if not any(word in line for word in ELSEWHERE)
]


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A folder with the files that the pages name."""
    folder = tmp_path_factory.mktemp("mine")
    numbers = np.random.default_rng(0)
    rows = [f"{a:.2f},{b:.2f},{'red' if a > b else 'blue'}" for a, b in numbers.random((60, 2))]
    (folder / "irises.csv").write_text("\n".join(["width,length,species", *rows]))
    images = {f"{split}_x": numbers.random((40, 1, 8, 8), dtype=np.float32) for split in ("train", "test")}
    np.savez(folder / "all.npz", **images, **{f"{split}_y": np.arange(40) % 10 for split in ("train", "test")})
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "training.md").read_text(encoding="utf-8"), re.DOTALL)
    (losses,) = [block for block in blocks if block.startswith("# my_losses.py")]
    for name, text in {**MINE, "my_losses.py": losses}.items():
        (folder / name).write_text(text)
    return folder


def test_pages_have_commands():
    assert len(HERE) > 25 and len({page for page, _ in TYPED}) == len(PAGES)


@pytest.mark.parametrize("line", HERE)
def test_a_command_of_a_page_can_be_planned(line, command, mine, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(mine), os.environ.get("PYTHONPATH", "")]))
    words = shlex.split(line)[2:]
    words += [] if any(word.startswith("dataset=") for word in words) else ["dataset.source=bundled"]
    done = command(*words, "--dry-run", output=tmp_path, cwd=mine)
    assert done.returncode == 0, done.stderr
    assert "nothing was trained" in done.stdout or "--cfg" in line
