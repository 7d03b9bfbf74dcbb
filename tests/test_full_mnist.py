"""The main job at full budget, with the real MNIST (HW1_DATA): minutes long."""

import pandas as pd
import pytest

from hw1.runs import Sweep


@pytest.mark.slow
def test_flatness_interp_finds_what_is_known(command, tmp_path):
    done = command("experiment=flatness_interp", "init=independent,shared", "dataset.source=full", output=tmp_path)
    assert done.returncode == 0, done.stderr
    sweep = Sweep.read(tmp_path / "flatness_interp")
    runs = sweep.table().query("`optimizer.lr` == 0.001").set_index("dataset.batch_size")
    assert (runs.loc[64, "test/accuracy"] >= 0.982).all() and (runs.loc[1024, "test/accuracy"] >= 0.970).all()
    table = pd.read_csv(sweep.path / "interpolation.csv")
    assert (table.groupby(["optimizer.lr", "init", "split"]).size() == 31).all()
    for run in sweep.runs:
        alpha = {64: 0, 1024: 1}[run.value("dataset.batch_size")]
        same = [table[key] == run.value(key) for key in ("optimizer.lr", "init")]
        rows = table[same[0] & same[1]]
        for split in ("train", "test"):
            (row,) = rows[(rows["alpha"] == alpha) & (rows["split"] == split)].to_dict("records")
            assert row["loss"] == pytest.approx(run.result["metrics"][f"{split}/loss"], abs=1e-6)
            assert row["accuracy"] == pytest.approx(run.result["metrics"][f"{split}/accuracy"], abs=1e-6)
    barriers = pd.read_csv(sweep.path / "barriers.csv").query("split == 'test' and `optimizer.lr` == 0.001")
    barrier = barriers.set_index("init")["barrier"]
    assert barrier["independent"] >= 0.5 and barrier["shared"] < barrier["independent"] / 5
