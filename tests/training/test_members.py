"""Member r of a run of several is the single run with seed + r: start, order, dropout, gradients, training."""

import json

import pandas as pd
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from scipy.stats import ks_2samp

from composed import settings, trained
from hw1.runs import Run, Sweep
from hw1.settings import ConfigError, run_key
from hw1.training import build
from hw1.training.fit import fit

torch.set_num_threads(1)

SMALL = ("dataset=digits", "dataset.train_size=90", "dataset.batch_size=32", "logger=none", "trainer.progress=false")
NETS = {
    "mlp": ("model=mlp", "model.hidden=[6,5]"),
    "tanh": ("model=mlp", "model.hidden=[6]", "model.activation=tanh"),
    "dropout": ("model=mlp", "model.hidden=[16]", "model.dropout=0.5"),
    "cnn": ("model=cnn", 'model.layers=["c3(4)",p2,drop2d,8,drop]'),
    "rnn": ("model=rnn", "model.hidden=5"),
    "bn": ("model=cnn", 'model.layers=["c3(4)",bn,p2,8,bn]'),
}


@pytest.mark.parametrize(("name", "init"), [*((name, "independent") for name in NETS), ("mlp", "shared")])
def test_the_same_initial_weights_bit_for_bit(name, init):
    words = (*SMALL, *NETS[name], f"init={init}")
    several = settings(*words, "replicas=3", "seed=4")
    data = build.datamodule(several.dataset)
    together = build.network(several, data, several.member_seeds)
    for member in range(3):
        single = settings(*words, f"seed={4 + member}", "dataset.seed=4")
        alone = build.network(single, data, single.member_seeds)
        state = together.member(member).state_dict()
        assert list(state) == list(alone.state_dict())
        assert all(torch.equal(state[key], value) for key, value in alone.state_dict().items())
        assert torch.equal(together.theta()[member], torch.cat([p.detach().flatten() for p in alone.parameters()]))


@pytest.mark.parametrize("name", ["mlp", "cnn", "rnn"])
@pytest.mark.parametrize(("precision", "tolerance"), [("32-true", 1e-6), ("64-true", 1e-13)])
def test_first_step_gradients(name, precision, tolerance, tmp_path):
    """One step of gradient descent with lr 1: the difference of the weights is the gradient."""
    words = (*SMALL, *NETS[name], "optimizer=sgd", "optimizer.lr=1.0", f"trainer.precision={precision}")
    words = (*words, "trainer.max_epochs=1", "+trainer.limit_train_batches=1", "callbacks=[default,gradient_norm]")
    several = trained(settings(*words, "replicas=3"), tmp_path)
    moves = several.snapshots().values  # [T, R, P]
    history = several.history().set_index(["step", "member"])["gradient_norm"].dropna()
    for member in range(3):
        alone = trained(settings(*words, f"seed={member}", "dataset.seed=0"), tmp_path)
        path = alone.snapshots().values
        assert torch.equal(moves[0, member], path[0])
        gradient = path[0] - path[-1]
        difference = (moves[0, member] - moves[-1, member] - gradient).norm() / gradient.norm()
        assert difference < tolerance * (1 if precision == "64-true" else 4)  # two float32 weights are subtracted
        expected = alone.history().set_index("step")["gradient_norm"].dropna()
        assert history.xs(member, level="member").to_list() == pytest.approx(expected.to_list(), rel=4 * tolerance)


@pytest.mark.parametrize(("name", "batch_size"), [*((name, 32) for name in NETS), ("mlp", "null")])
def test_float64_training_is_that_of_single_runs(name, batch_size, tmp_path):
    words = (*SMALL, *NETS[name], "trainer.precision=64-true", f"dataset.batch_size={batch_size}")
    words = (*words, "trainer.max_epochs=4", "seed=7")
    several = trained(settings(*words, "replicas=2"), tmp_path)
    result = several.result
    assert result["replicas"] == 2 and several.theta().shape == (2, result["parameters"])
    table = several.history()
    for member in range(2):
        alone = trained(settings(*words, f"seed={7 + member}", "dataset.seed=7"), tmp_path)
        for metric, value in alone.result["metrics"].items():
            assert result["metrics"][metric][member] == pytest.approx(value, rel=1e-10)
        own = table[table["member"] == member].drop(columns="member").reset_index(drop=True)
        for column in ("train_step/loss", "train/loss", "test/accuracy"):
            expected = alone.history().set_index("step")[column].dropna()
            assert own.set_index("step")[column].dropna().to_dict() == pytest.approx(expected.to_dict(), rel=1e-10)
        torch.testing.assert_close(several.theta()[member], alone.theta(), rtol=1e-9, atol=1e-11)
        x = several.datamodule().test_tensors[0].double()
        torch.testing.assert_close(several.net(member)(x), alone.net()(x), rtol=1e-9, atol=1e-9)


class Interrupts(Callback):
    """Ctrl-C at the beginning of epoch 2, once."""

    armed = True

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2 and Interrupts.armed:
            Interrupts.armed = False
            raise KeyboardInterrupt


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_with_batch_norm_weights_and_buffers_are_those_of_single_runs_bit_for_bit(optimizer, tmp_path):
    words = (*SMALL, *NETS["bn"], f"optimizer={optimizer}", "optimizer.lr=1e-2", "trainer.max_epochs=3", "seed=7")
    several = trained(settings(*words, "replicas=3"), tmp_path)
    for epoch in (0, 3):
        members = several.nets(epoch)
        for member, net in enumerate(members):
            alone = trained(settings(*words, f"seed={7 + member}", "dataset.seed=7"), tmp_path)
            state, expected = net.state_dict(), alone.nets(epoch)[0].state_dict()
            assert state.keys() == expected.keys() and "1.running_var" in state
            for name, value in expected.items():
                assert state[name].dtype == value.dtype and torch.equal(state[name], value), name
            assert state["1.num_batches_tracked"] == 3 * epoch  # 90 examples in batches of 32
    one, two = (net.state_dict()["1.running_mean"] for net in members[:2])
    assert not torch.equal(one, two)


@pytest.mark.parametrize("name", ["mlp", "cnn", "bn"])
def test_an_interrupted_run_goes_on_bit_by_bit(name, tmp_path, monkeypatch):
    """Dropout and the order of batches are each member's own, also behind the checkpoint."""
    monkeypatch.setattr(Interrupts, "armed", True)
    words = (*SMALL, *NETS[name], "trainer.max_epochs=4", "trainer.checkpoint_seconds=0", "replicas=2")
    whole = trained(settings(*words), tmp_path)
    broken = settings(*words, f"+callbacks.stop={{_target_: {__name__}.Interrupts}}")
    with pytest.raises(KeyboardInterrupt):
        fit(broken, tmp_path / f"run-{broken.key}")
    assert not Interrupts.armed
    resumed = trained(broken, tmp_path)
    assert torch.equal(resumed.theta(), whole.theta())
    assert resumed.result["metrics"] == whole.result["metrics"]
    pd.testing.assert_frame_equal(resumed.history(), whole.history())


def test_losses_of_the_571_net_after_100_epochs_in_float64(tmp_path):
    words = ("dataset=function", "model=mlp", "model.hidden=[5,10,10,10,10,10,5]", "logger=none", "callbacks=none")
    words = (*words, "trainer.precision=64-true", "trainer.max_epochs=100", "trainer.check_val_every_n_epoch=100")
    several = trained(settings(*words, "replicas=3"), tmp_path).result["metrics"]["train/loss"]
    for member in range(3):
        alone = trained(settings(*words, f"seed={member}", "dataset.seed=0"), tmp_path)
        assert several[member] == pytest.approx(alone.result["metrics"]["train/loss"], rel=1e-10)


def test_the_table_has_one_row_a_member(command, tmp_path):
    words = (*SMALL, *NETS["mlp"], "trainer.max_epochs=1", "replicas=3", "seed=5", "optimizer.lr=1e-3,1e-2")
    done = command(*words, output=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "n = 3" in done.stdout
    sweep = Sweep.read(tmp_path / "default")
    table = sweep.table("test/loss")
    assert list(table["seed"]) == [5, 6, 7] * 2 and list(table["member"]) == [0, 1, 2] * 2
    assert table["test/loss"].to_list() == [v for run in sweep.runs for v in run.result["metrics"]["test/loss"]]
    assert pd.read_csv(sweep.path / "runs.csv")["test/loss"].nunique() == 6


def test_a_member_that_diverges_leaves_the_others_alone(tmp_path):
    """The learning rate takes one of the starts to infinity; the run ends well and says which."""
    words = ("dataset=function", "model=mlp", "model.hidden=[8]", "logger=none", "optimizer=sgd", "callbacks=none")
    words = (*words, "trainer.max_epochs=60", "trainer.check_val_every_n_epoch=60", "replicas=30")
    ends = {}
    for lr in ("0.12", "0.2", "0.4", "0.8"):
        losses = trained(settings(*words, f"optimizer.lr={lr}"), tmp_path).result["metrics"]["train/loss"]
        ends[lr] = [loss == loss and abs(loss) < 1e30 for loss in losses]
        if any(ends[lr]) and not all(ends[lr]):
            bad = ends[lr].index(False)
            good = ends[lr].index(True)
            alone = trained(settings(*words, f"optimizer.lr={lr}", f"seed={good}", "replicas=1"), tmp_path)
            assert losses[good] == pytest.approx(alone.result["metrics"]["train/loss"], rel=1e-3)
            assert bad != good
            return
    pytest.fail(f"no learning rate parts the members: {json.dumps(ends)}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("replicas=0",), r"^replicas: got 0, expected a positive integer$"),
        (("replicas=2.5",), r"^replicas: got 2.5, expected a positive integer$"),
        (("replicas=2", "+trainer.gradient_clip_val=1"), r"^trainer.gradient_clip_val: got 1 with replicas=2"),
        (("replicas=2", "~optimizer", "+optimizer={_target_: torch.optim.LBFGS}"), r"^optimizer: got LBFGS with repl"),
        (("objective.minimise=gradient",), r"^objective.minimise: got 'gradient', expected loss or squared_gradient"),
        (("objective.after=3",), r"^objective.after: got 3, expected 0 where"),
        (
            ("objective.minimise=squared_gradient_norm", "objective.after=3", "trainer.max_epochs=3"),
            r"^objective.after: got 3, expected less than trainer.max_epochs=3, or objective.minimise=loss",
        ),
    ],
)
def test_what_would_couple_members_is_refused(words, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        build.validate(settings("dataset=digits", 'model.layers=["c3(4)",8]', *words), tmp_path)


def test_value_clipping_couples_nothing(tmp_path):
    words = ("replicas=2", "+trainer.gradient_clip_val=1", "+trainer.gradient_clip_algorithm=value")
    build.validate(settings("dataset=digits", "model=mlp", *words), tmp_path)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_a_run_without_snapshots_is_read_from_its_checkpoint(name, tmp_path):
    words = (*SMALL, *NETS[name], "trainer.max_epochs=2", "replicas=2")
    run = trained(settings(*words), tmp_path)
    theta = run.theta()
    for file in (run.path / "snapshots").iterdir():
        file.unlink()
    assert torch.equal(run.theta(), theta)


@pytest.mark.slow
def test_distributions_over_100_members_after_1000_epochs(tmp_path):
    """Training is chaotic: single members differ, their distribution does not."""
    words = ("dataset=function", "model=mlp", "model.hidden=[5,10,10,10,10,10,5]", "logger=none", "callbacks=none")
    words = (*words, "trainer.max_epochs=1000", "trainer.check_val_every_n_epoch=1000")
    several = trained(settings(*words, "replicas=100"), tmp_path).result["metrics"]["train/loss"]
    single = [
        trained(settings(*words, f"seed={seed}", "dataset.seed=0"), tmp_path).result["metrics"]["train/loss"]
        for seed in range(100)
    ]
    assert ks_2samp(several, single).pvalue > 0.01
    assert pd.Series(several).median() == pytest.approx(pd.Series(single).median(), rel=0.1)


def test_old_runs_without_the_setting_are_read(tmp_path):
    run = trained(settings(*SMALL, *NETS["mlp"], "trainer.max_epochs=1"), tmp_path)
    theta = run.theta()
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    del config["replicas"], config["objective"]
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))
    assert run_key(config) == run.key
    assert torch.equal(Run(run.path).theta(), theta)
