import subprocess
import sys
from types import SimpleNamespace

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hw1.data import Digits, Function
from hw1.data.protocol import TrainTest
from hw1.models import Cnn, Mlp, members_of, side_by_side
from hw1.training import Task
from hw1.training.schedule import Schedule
from tiny_fit import Lines, tiny_fit


def brute_force(net, x, y):
    """(mean cross-entropy, accuracy) example by example, in float64 and without dropout."""
    net = net.double().eval()
    losses, hits = [], []
    with torch.no_grad():
        for image, label in zip(x.double(), y, strict=True):
            logits = net(image[None])[0]
            losses.append((logits.logsumexp(0) - logits[label]).item())
            hits.append(logits.argmax().item() == label.item())
    return sum(losses) / len(losses), sum(hits) / len(hits)


@pytest.mark.parametrize(
    "net",
    [
        lambda: Mlp((1, 8, 8), 10, hidden=[20], dropout=0.5),
        lambda: Cnn((1, 8, 8), 10, layers=["c3(4)", "bn", "p2", "drop2d", 8, "drop"]),
    ],
)
@pytest.mark.parametrize("val_fraction", [0.0, 0.1])
def test_epoch_metrics_are_means_over_whole_sets_in_evaluation_mode(net, val_fraction, tmp_path):
    lines, module = Lines(), net()
    data = {"train_size": 100, "eval_batch_size": 33, "val_fraction": val_fraction}  # 100 = 3 x 33 + 1
    trainer = tiny_fit(module, Digits(), tmp_path, logger=lines, epochs=2, data=data)
    sets = trainer.datamodule
    for name in ("train", "test") if not val_fraction else ("train", "val", "test"):
        x, y = getattr(sets, f"{name}_tensors")
        loss, accuracy = brute_force(module, x, y)
        assert trainer.callback_metrics[f"{name}/loss"].item() == pytest.approx(loss, abs=1e-6)
        assert trainer.callback_metrics[f"{name}/accuracy"].item() == pytest.approx(accuracy, abs=1e-6)
        logged = lines.of(f"{name}/loss")
        assert len(logged) == 2 and logged[max(logged)] == pytest.approx(loss, abs=1e-6)
    assert {name for name in trainer.callback_metrics if "/" in name} == {
        f"{name}/{metric}" for name in sets.eval_names for metric in ("loss", "accuracy")
    }


# The examples lie in memory; Lightning 2.6 asks torch 2.15's pytrees in a deprecated way.
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*isinstance.treespec, LeafSpec")
def test_the_test_loop_gives_the_same_numbers_and_logs_nothing(tmp_path):
    lines = Lines()
    trainer = tiny_fit(
        Mlp((1, 8, 8), 10, hidden=[9], dropout=0.5), Digits(), tmp_path, logger=lines, data={"train_size": 50}
    )
    last, count = dict(trainer.callback_metrics), len(lines.lines)
    trainer.test(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False)
    assert {name: trainer.callback_metrics[name].item() for name in last} == {k: v.item() for k, v in last.items()}
    assert len(lines.lines) == count


def test_regression_has_no_accuracy(tmp_path):
    examples = Function("sinc_5pi", [-1, 1], points=100, noise=0.0, noise_seed=0, test_points=70)
    net = Mlp((1,), 1, hidden=[6])
    trainer = tiny_fit(net, examples, tmp_path)
    assert set(trainer.callback_metrics) == {"train/loss", "test/loss"}
    net = net.double()
    for name in ("train", "test"):
        x, y = (tensor.double() for tensor in getattr(trainer.datamodule, f"{name}_tensors"))
        mean = sum((net(a[None]) - b).square().item() for a, b in zip(x, y, strict=True)) / len(x)
        assert trainer.callback_metrics[f"{name}/loss"].item() == pytest.approx(mean, abs=1e-6)


class Sequences(nn.Module):
    """Outputs [B, T, V] of inputs [B, T, F], far larger for the later examples: a wrong weight of a batch shows."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 6)

    def forward(self, x):
        return self.head(x) * x[:, :1, :1].square()


def sequences(kind="tokens", loss=None, train=41):
    """41 sequences of 3 tokens out of 6: with batches of 33, a ragged last one of 8."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(train, 3, 4, generator=generator), torch.randint(6, (train, 3), generator=generator)
    x[33:] *= 3
    more = {"kind": kind} if kind else {}
    return SimpleNamespace(
        name="sequences", source="made", in_shape=(3, 4), out_features=6, prepare=lambda: None, loss=loss, **more,
        identity=lambda: f"sequences {train}", load=lambda: TrainTest(x, y, x, y),
    )  # fmt: skip


def of_tokens(net, data):
    """(mean cross-entropy, accuracy) over all tokens, in float64."""
    x, y = data.test_tensors
    with torch.no_grad():
        logits = net.double().eval()(x.double())
    loss = -logits.log_softmax(-1).gather(-1, y[..., None]).mean()
    return loss.item(), (logits.argmax(-1) == y).double().mean().item()


def test_a_ragged_last_batch_of_sequences_weighs_what_it_holds(tmp_path):
    torch.manual_seed(0)
    net = Sequences()
    trainer = tiny_fit(net, sequences(), tmp_path)
    loss, accuracy = of_tokens(net, trainer.datamodule)
    assert trainer.callback_metrics["test/loss"].item() == pytest.approx(loss, abs=1e-6)
    assert trainer.callback_metrics["test/accuracy"].item() == pytest.approx(accuracy, abs=1e-6)


def test_a_user_s_own_loss_of_sequences(tmp_path):
    def own(outputs, targets, reduction="mean"):
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction=reduction)

    net = Sequences()
    trainer = tiny_fit(net, sequences(kind=None, loss=own), tmp_path)
    assert set(trainer.callback_metrics) == {"train/loss", "test/loss"}
    loss, _ = of_tokens(net, trainer.datamodule)
    assert trainer.callback_metrics["test/loss"].item() == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize(("kind", "values"), [("binary", {"loss", "accuracy"}), ("counts", {"loss"})])
def test_one_output_an_example(kind, values, tmp_path):
    torch.manual_seed(0)
    x, y = torch.randn(41, 4), torch.randint(0, 2 if kind == "binary" else 5, (41,))
    examples = SimpleNamespace(
        name="ones", source="made", in_shape=(4,), out_features=1, kind=kind, prepare=lambda: None,
        identity=lambda: kind, load=lambda: TrainTest(x, y, x, y),
    )  # fmt: skip
    net = Mlp((4,), 1, hidden=[5])
    trainer = tiny_fit(net, examples, tmp_path)
    logged = {name.removeprefix("test/"): v.item() for name, v in trainer.callback_metrics.items() if "test" in name}
    assert set(logged) == values
    with torch.no_grad():
        z = net.double().eval()(x.double())[:, 0]
    nats = F.softplus(torch.where(y > 0, -z, z)) if kind == "binary" else z.exp() - y * z
    assert logged["loss"] == pytest.approx(nats.mean().item(), abs=1e-6)
    if kind == "binary":
        assert logged["accuracy"] == pytest.approx(((z > 0) == (y > 0)).double().mean().item(), abs=1e-6)


def test_members_on_sequences(tmp_path):
    nets = side_by_side([Sequences() for _ in range(3)])
    trainer = tiny_fit(nets, sequences(), tmp_path)
    task = trainer.lightning_module
    for member, net in enumerate(members_of(nets)):
        loss, accuracy = of_tokens(net, trainer.datamodule)
        assert task.member_metrics["test/loss"][member] == pytest.approx(loss, abs=1e-6)
        assert task.member_metrics["test/accuracy"][member] == pytest.approx(accuracy, abs=1e-6)


class Channels(nn.Module):
    """Logits of dense classes, [B, C, H]: one class a position."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 3, 1)

    def forward(self, x):
        return self.conv(x.transpose(1, 2))


@pytest.mark.parametrize("members", [1, 2])
def test_classes_stand_in_the_second_dimension(members, tmp_path):
    examples = sequences("classes")
    load = examples.load()
    y = load.train_y % 3
    examples.load, examples.identity = lambda: TrainTest(load.train_x, y, load.train_x, y), lambda: "dense classes"
    nets = [Channels() for _ in range(members)]
    trainer = tiny_fit(side_by_side(nets) if members > 1 else nets[0], examples, tmp_path)
    task = trainer.lightning_module
    for member, net in enumerate(members_of(task.net)):
        with torch.no_grad():
            logits = net.double()(load.train_x.double()).transpose(1, 2)  # [B, H, C]
        loss = -logits.log_softmax(-1).gather(-1, y[..., None]).mean().item()
        assert task.member_metrics["test/loss"][member] == pytest.approx(loss, abs=1e-6)
        accuracy = (logits.argmax(-1) == y).double().mean().item()
        assert task.member_metrics["test/accuracy"][member] == pytest.approx(accuracy, abs=1e-6)


class Nan(Mlp):
    """Outputs that are no numbers for some examples, once it is evaluated."""

    def forward(self, x):
        outputs = super().forward(x)
        return outputs if self.training else torch.where(x > 0.9, float("nan"), outputs)


def test_a_loss_that_is_no_number_is_not_left_out_of_the_mean(tmp_path):
    examples = Function("sin_2", [-1, 1], points=100, noise=0.0, noise_seed=0, test_points=70)
    trainer = tiny_fit(Nan((1,), 1, hidden=[3]), examples, tmp_path)
    assert trainer.callback_metrics["train/loss"].isnan() and trainer.callback_metrics["test/loss"].isnan()


def test_the_state_is_the_network_and_nothing_else(tmp_path):
    net = Mlp((1, 8, 8), 10, hidden=[9])
    trainer = tiny_fit(net, Digits(), tmp_path, data={"train_size": 50})
    assert set(trainer.lightning_module.state_dict()) == {f"net.{name}" for name in net.state_dict()}
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(trainer.lightning_module(x), net(x))


def test_training_is_the_optimizer_on_the_batch_loss(tmp_path):
    """Full-batch gradient descent with a schedule, against the same five lines by hand."""
    examples = Function("sin_2", [-1, 1], points=30, noise=0.0, noise_seed=0, test_points=10)
    net, copy = Mlp((1,), 1, hidden=[4]), Mlp((1,), 1, hidden=[4])
    copy.load_state_dict(net.state_dict())
    tiny_fit(net, examples, tmp_path, epochs=5, data={"batch_size": None}, optimizer=lambda p: torch.optim.SGD(p, 0.1))
    x, y = examples.load().train_x, examples.load().train_y
    for _ in range(5):
        gradients = torch.autograd.grad(F.mse_loss(copy(x), y), list(copy.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(copy.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
    for one, two in zip(net.parameters(), copy.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-7)


def test_a_schedule_steps_when_it_says(tmp_path):
    def schedule(optimizer, length):
        return Schedule(torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5), interval="step")

    task = Task(nn.Linear(1, 1), F.mse_loss, lambda p: torch.optim.SGD(p, 1.0), schedule)
    made = task.configure_optimizers()
    assert made["lr_scheduler"]["scheduler"].optimizer is made["optimizer"]
    assert made["lr_scheduler"]["interval"] == "step"
    alone = Task(nn.Linear(1, 1), F.mse_loss, lambda p: torch.optim.SGD(p, 1.0))
    assert isinstance(alone.configure_optimizers(), torch.optim.SGD)


def test_a_callback_s_module_is_the_task():
    task = Task(nn.Linear(1, 1), F.mse_loss, torch.optim.Adam)
    assert Task.of(task) is task
    with pytest.raises(TypeError, match=r"^module: got a LightningModule, expected hw1's Task$"):
        Task.of(lightning.LightningModule())


# In one interpreter, which takes seconds to import all this: what the task brings, then the rest of the room.
IMPORTS = """
import sys
import torch, lightning, torchmetrics
had = set(sys.modules)
import hw1.training.task
print(*sorted(set(sys.modules) - had))
import hw1.training.fit, hw1.training.cost, hw1.training.tensorboard
print(*sorted(set(sys.modules) - had))
"""


def test_training_knows_no_callback_and_the_task_brings_nothing_but_torch_lightning_and_torchmetrics():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    task, room = (
        {name for name in line.split() if name.partition(".")[0] not in sys.stdlib_module_names}
        for line in done.stdout.splitlines()
    )
    assert {name.partition(".")[0] for name in task} == {"filelock", "hw1"}  # torch needs filelock as well
    rooms = {name.split(".")[1] for name in task if name.startswith("hw1.")}
    light = {"_before_torch", "bounds", "files", "kinds", "lease", "lease_file", "losses"}
    light |= {"machine", "memory", "metrics", "on_first_use", "preemption", "seeds", "vectors"}
    assert rooms <= light | {"data", "models", "risk", "settings", "training"}
    rooms = {name.split(".")[1] for name in room if name.startswith("hw1.")}
    assert not rooms & {"callbacks", "measures", "runs", "studies", "report", "curvature", "landscape"}
    assert "pandas" not in room
