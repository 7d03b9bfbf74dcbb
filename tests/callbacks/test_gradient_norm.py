import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from hw1.callbacks import GradientNorm
from hw1.callbacks.gradient_norm import squared_norms
from hw1.data import Digits, Function
from hw1.models import Cnn, Mlp
from hw1.training.metrics_csv import MetricsCsv
from hw1.training.step_loss import StepLoss
from hw1.training.task import Task
from tiny_fit import Lines, Sam, tiny_fit


class Before(Callback):
    """The network and the batch at the start of every step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append((copy.deepcopy(pl_module.net), *(tensor.clone() for tensor in batch)))


def norms(net, loss, x, y):
    """{layer: norm} and the total under "": float32 gradients by autograd on the copy, squares summed in float64."""
    names, parameters = zip(*net.named_parameters(), strict=True)
    squares = {"": 0.0}
    for name, gradient in zip(names, torch.autograd.grad(loss(net(x), y), parameters), strict=True):
        square = sum(value**2 for value in gradient.flatten().tolist())
        layer = name.rpartition(".")[0]
        squares[layer] = squares.get(layer, 0.0) + square
        squares[""] += square
    return {layer: square**0.5 for layer, square in squares.items()}


def function(points=70):
    return Function("sinc_5pi", [-1, 1], points=points, noise=0.1, noise_seed=0, test_points=10)


OPTIMIZERS = {
    "plain": (lambda p: torch.optim.SGD(p, 0.1), {}),
    "decayed and clipped": (lambda p: torch.optim.Adam(p, 1e-2, weight_decay=0.5), {"gradient_clip_val": 1e-3}),
}


@pytest.mark.parametrize("case", OPTIMIZERS)
@pytest.mark.parametrize(
    ("net", "examples", "size"),
    [
        (lambda: Mlp((1,), 1, hidden=[6, 5]), function, 70),
        (lambda: Cnn((1, 8, 8), 10, layers=["c3(4)", "p2", 6]).to(memory_format=torch.channels_last), Digits, 70),
    ],
)
def test_it_is_the_norm_of_the_batch_loss_at_every_step(case, net, examples, size, tmp_path):
    optimizer, more = OPTIMIZERS[case]
    before, lines, module = Before(), Lines(), net()
    data = {"batch_size": 32, "train_size": size}
    callbacks = [before, GradientNorm(every_n_steps=1, per_layer=True)]
    tiny_fit(module, examples(), tmp_path, callbacks, logger=lines, epochs=2, optimizer=optimizer, data=data, **more)
    assert [len(x) for _, x, _ in before.seen] == [32, 32, 6] * 2
    loss = F.mse_loss if examples is function else F.cross_entropy
    layers = {name.rpartition(".")[0] for name, _ in module.named_parameters()}
    found = {layer: lines.of(f"gradient_norm/{layer}" if layer else "gradient_norm") for layer in ["", *layers]}
    for step, (network, x, y) in enumerate(before.seen):
        expected = norms(network, loss, x, y)
        assert set(expected) == set(found)
        for layer, value in expected.items():
            assert found[layer][step] == pytest.approx(value, rel=1e-6), layer
        squares = sum(found[layer][step] ** 2 for layer in layers)
        assert squares == pytest.approx(found[""][step] ** 2, rel=1e-12)
    assert set(found[""]) == set(range(6))


@pytest.mark.parametrize(("every", "steps"), [(1, range(10)), (3, [0, 3, 6, 9]), (4, [0, 4, 8]), (100, [0])])
def test_every_n_steps_and_no_layers_unless_asked(every, steps, tmp_path):
    lines = Lines()
    callbacks = [GradientNorm(every_n_steps=every, per_layer=False)]
    tiny_fit(Mlp((1,), 1, hidden=[3]), function(), tmp_path, callbacks, logger=lines, epochs=2)
    assert list(lines.of("gradient_norm")) == list(steps)
    assert not any(name.startswith("gradient_norm/") for _, metrics in lines.lines for name in metrics)


def test_more_steps_than_the_buffer_holds(tmp_path):
    before, lines = Before(), Lines()
    callbacks = [before, GradientNorm(every_n_steps=1, per_layer=False)]
    tiny_fit(Mlp((1,), 1, hidden=[2]), function(130), tmp_path, callbacks, logger=lines, data={"batch_size": 1})
    found = lines.of("gradient_norm")
    assert list(found) == list(range(130))
    for step in (0, 99, 100, 129):
        assert found[step] == pytest.approx(
            norms(before.seen[step][0], F.mse_loss, *before.seen[step][1:])[""], rel=1e-5
        )


def test_frozen_and_unused_parameters(tmp_path):
    net = nn.ModuleDict({"used": nn.Linear(2, 1), "frozen": nn.Linear(2, 1), "idle": nn.Linear(2, 1)})
    net["frozen"].requires_grad_(False)
    net["used"](torch.tensor([[3.0, 4.0]])).sum().backward()
    assert squared_norms(net).tolist() == [[25.0, 1.0, 0.0, 0.0]]


def test_a_parameter_that_is_one_number_and_got_no_gradient():
    net = nn.Module()
    net.scale, net.weight = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor([3.0, 4.0]))
    net.weight.square().sum().backward()
    assert squared_norms(net).tolist() == [[0.0, 100.0]]


def test_a_scaled_loss_does_not_scale_the_norm(tmp_path):
    """Fused optimizers unscale inside their step: with 16-bit precision the gradients are still scaled in the hook."""
    lines, before = Lines(), Before()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    tiny_fit(
        Mlp((1,), 1, hidden=[4]),
        function(16),
        tmp_path,
        [before, GradientNorm(every_n_steps=1, per_layer=False)],
        logger=lines,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 1e-3, fused=True),
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
    )
    expected = norms(before.seen[0][0], F.mse_loss, *before.seen[0][1:])[""]
    assert lines.of("gradient_norm")[0] == pytest.approx(expected, rel=0.02)


def test_one_row_a_step_in_a_long_epoch(tmp_path):
    """A sparse measurement is fetched long after its step; it still belongs to the row of that step."""
    csv, net = MetricsCsv(tmp_path), nn.Linear(1, 1)
    net(torch.ones(1, 1)).sum().backward()
    trainer = SimpleNamespace(global_step=0, loggers=[csv], current_epoch=0, precision_plugin=None)
    module, gradient, loss = (
        Task(net, F.mse_loss, torch.optim.Adam),
        GradientNorm(every_n_steps=50, per_layer=False),
        StepLoss(),
    )
    for step in range(5_200):
        trainer.global_step = step
        loss.on_train_batch_start(trainer, module, None, step)
        gradient.on_before_optimizer_step(trainer, module, None)
        trainer.global_step = step + 1
        for callback in (gradient, loss):
            callback.on_train_batch_end(trainer, module, {"losses": torch.ones(1)}, None, step)
    for callback in (gradient, loss):
        callback.on_train_epoch_end(trainer, module)
    csv.write()
    rows = (tmp_path / "metrics.csv").read_text().splitlines()[1:]
    steps = [int(row.split(",")[1]) for row in rows]
    assert steps == list(range(5_200))


@pytest.mark.parametrize("objective", ["loss", "squared_gradient_norm"])
@pytest.mark.parametrize(
    "optimizer", [lambda p: Sam(p, 0.01), lambda p: torch.optim.LBFGS(p, 0.1, max_iter=4)], ids=["sam", "lbfgs"]
)
def test_of_several_evaluations_in_a_step_the_first_is_logged(optimizer, objective, tmp_path):
    before, lines = Before(), Lines()
    callbacks = [before, GradientNorm(every_n_steps=1, per_layer=True), StepLoss()]
    task = {"objective": objective}
    net = Mlp((1,), 1, hidden=[6], activation="tanh")
    tiny_fit(net, function(40), tmp_path, callbacks, logger=lines, epochs=2, optimizer=optimizer, task=task)
    found = {name: lines.of(name) for name in ("gradient_norm", "gradient_norm/1", "train_step/loss")}
    assert all(list(steps) == list(range(6)) for steps in found.values())
    for step, (there, x, y) in enumerate(before.seen):
        expected = norms(there, F.mse_loss, x, y)
        assert found["gradient_norm"][step] == pytest.approx(expected[""], rel=1e-5)
        assert found["gradient_norm/1"][step] == pytest.approx(expected["1"], rel=1e-5)
        assert found["train_step/loss"][step] == pytest.approx(F.mse_loss(there(x), y).item(), rel=1e-6)


def test_accumulated_gradients_are_those_of_the_step(tmp_path):
    """Of two batches that make a step, the norm is that of their mean gradient, at the last batch."""
    before, lines = Before(), Lines()
    callbacks = [before, GradientNorm(every_n_steps=1, per_layer=False)]
    data = {"batch_size": 10}
    net = Mlp((1,), 1, hidden=[6])
    tiny_fit(net, function(40), tmp_path, callbacks, logger=lines, data=data, accumulate_grad_batches=2)
    found = lines.of("gradient_norm")
    assert list(found) == [0, 1]
    for step in found:
        (there, *one), (_, *two) = before.seen[2 * step : 2 * step + 2]
        both = [torch.cat(parts) for parts in zip(one, two, strict=True)]
        assert found[step] == pytest.approx(norms(there, F.mse_loss, *both)[""], rel=1e-5)


@pytest.mark.parametrize("every", [0, -1])
def test_bad_distances_are_refused(every):
    with pytest.raises(ValueError, match=rf"^every_n_steps: got {every}, expected a positive integer$"):
        GradientNorm(every_n_steps=every, per_layer=True)
