"""What stands in this folder works together: `pytest`."""

import subprocess
import sys
from pathlib import Path

import torch

from hw1.runs import Sweep
from my_data import Spirals
from my_losses import poly
from my_models import Maxout

PROJECT = Path(__file__).parents[1]


def test_the_loss_is_its_formula():
    outputs, targets = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])
    p = outputs.softmax(1)[range(4), targets]
    torch.testing.assert_close(poly(outputs, targets), (1 - p - p.log()).mean())


def test_the_model_has_one_output_a_class():
    data = Spirals(arms=3, points=30, noise=0.0)
    net = Maxout(data.in_shape, data.out_features, hidden=4, pieces=2)
    assert net(data.load().train_x).shape == (30, 3)


def test_the_question_is_answered(tmp_path):
    words = ["experiment=seed_spread", "budget=quick", "hydra/launcher=basic", f"output={tmp_path}"]
    subprocess.run([sys.executable, "-m", "hw1", "train", *words], cwd=PROJECT, check=True)
    sweep = Sweep.read(tmp_path / "seed_spread")
    table = sweep.table("test/loss", "fisher/trace")
    assert sweep.status == "complete" and len(table) == 2 and (table["fisher/trace"] > 0).all()
    assert (sweep.path / "ends.png").is_file() and (sweep.path / "report.html").is_file()
