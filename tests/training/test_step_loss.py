import math

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from hw1.callbacks import WeightSnapshots
from hw1.data import Function
from hw1.models import Mlp
from hw1.training.step_loss import NonFiniteLossError, StepLoss
from tiny_fit import Lines, tiny_fit


class Outputs(Callback):
    """The loss of every step, as Lightning hands it on."""

    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item())


class Breaks(Mlp):
    """A network whose loss is no number from one training step on."""

    def __init__(self, step, factor):
        super().__init__((1,), 1, hidden=[3])
        self.step, self.factor, self.calls = step, factor, 0

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        self.calls += 1
        return super().forward(x) * (self.factor if self.calls > self.step else 1.0)


def function(points):
    return Function("sin_2", [-1, 1], points=points, noise=0.0, noise_seed=0, test_points=10)


@pytest.mark.parametrize(("points", "batch_size", "epochs"), [(20, 8, 3), (230, 1, 1), (100, 1, 2)])
def test_every_step_is_logged_once_with_its_loss(points, batch_size, epochs, tmp_path):
    lines, outputs = Lines(), Outputs()
    data = {"batch_size": batch_size}
    tiny_fit(
        Mlp((1,), 1, hidden=[3]),
        function(points),
        tmp_path,
        [outputs, StepLoss()],
        logger=lines,
        epochs=epochs,
        data=data,
    )
    steps = epochs * math.ceil(points / batch_size)
    assert lines.of("train_step/loss") == dict(enumerate(outputs.losses)) and len(outputs.losses) == steps


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
@pytest.mark.parametrize(("step", "epoch"), [(0, 0), (4, 0), (5, 1), (13, 2)])
def test_a_loss_that_is_no_number_is_named_with_its_step(step, epoch, factor, tmp_path):
    lines = Lines()
    with pytest.raises(NonFiniteLossError) as caught:
        callbacks = [StepLoss(), WeightSnapshots(every_n_epochs=1)]
        tiny_fit(
            Breaks(step, factor), function(20), tmp_path, callbacks, logger=lines, epochs=4, data={"batch_size": 4}
        )
    value = "nan" if math.isnan(factor) else "inf"
    assert str(caught.value).startswith(f"the training loss is {value} at step {step} (epoch {epoch});")
    found = lines.of("train_step/loss")
    assert not math.isfinite(found[step]) and all(math.isfinite(found[i]) for i in range(step))
    # No weights of the epoch in which it happened are kept as if nothing were wrong.
    assert [file.name for file in sorted((tmp_path / "snapshots").iterdir())] == [
        f"epoch={e:06d}.safetensors" for e in range(epoch + 1)
    ]


def test_in_a_long_epoch_the_alarm_does_not_wait_for_the_end(tmp_path):
    net = Breaks(3, float("nan"))
    with pytest.raises(NonFiniteLossError, match=r"at step 3 \(epoch 0\)"):
        tiny_fit(net, function(400), tmp_path, [StepLoss()], data={"batch_size": 1})
    assert net.calls <= 101


def test_steps_of_accumulated_batches(tmp_path):
    lines = Lines()
    tiny_fit(Mlp((1,), 1, hidden=[3]), function(20), tmp_path, [StepLoss()], logger=lines, data={"batch_size": 5},
             accumulate_grad_batches=2)  # fmt: skip
    assert {step for step, metrics in lines.lines if "train_step/loss" in metrics} == {0, 1}


def test_the_loss_is_the_one_in_training_mode(tmp_path):
    lines = Lines()
    net = Mlp((1,), 1, hidden=[30], dropout=0.9)
    with torch.no_grad():
        net[-1].bias.fill_(1.0)
    tiny_fit(net, function(8), tmp_path, [StepLoss()], logger=lines, epochs=6, data={"batch_size": None},
             optimizer=lambda p: torch.optim.SGD(p, 0.0))  # fmt: skip
    assert len(set(lines.of("train_step/loss").values())) == 6  # new units dropped each time, the weights unchanged
