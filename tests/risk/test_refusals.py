"""What cannot be right is refused by one line, whose key, got, expected and remedy are read here, each for itself.

And the same thing done as the remedy says is right.
"""

from __future__ import annotations

import functools
import itertools
import re
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_any_module import MESSAGE, assert_close
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from untouched import untouched

import zoo
from hw1.curvature import EmpiricalRisk
from sampled import sampled

torch.set_num_threads(1)

N = 11


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(*sizes):
    """A small tanh network in float64, [B, 4] -> [B, 3] unless said."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return zoo.chain(list(sizes or (4, 5, 3)), nn.Tanh).double()


def in_batches(*columns, sizes=(5, 4, 2)):
    return list(zip(*(column.split(list(sizes)) for column in columns), strict=True))


NET, X, Y = network(), numbers(N, 4), numbers(N, 3, seed=1)
CLASSES = (torch.arange(N) * 3) // N  # ordered: batches hold one class or two
WEIGHTS = torch.tensor([1.0, 5.0, 0.1], dtype=torch.float64)
BATCHES = in_batches(X, Y)
LABELLED = in_batches(X, CLASSES)
LAST_NAN = torch.where(torch.arange(N)[:, None] == 10, torch.nan, X)
PER_EXAMPLE = numbers(N, seed=8).exp()
MASKED = [{"x": x, "y": y} for x, y in in_batches(X, torch.where(torch.arange(N) % 3 == 1, -100, CLASSES))]
IMPORTANT = [{"x": x, "y": y, "w": w} for x, y, w in in_batches(X, Y, PER_EXAMPLE)]
DICTS = [{"x": x, "y": y} for x, y in BATCHES]


def squares(module, batch):
    return F.mse_loss(module(batch["x"]), batch["y"])


def own_weights(outputs, targets):
    return F.cross_entropy(outputs, targets, weight=WEIGHTS)


def penalised(outputs, targets):
    """A closure over the caller's module, whose weights are not those that the risk moves."""
    return F.mse_loss(outputs, targets) + 0.1 * sum(p.square().sum() for p in NET.parameters())


def penalised_by_data(outputs, targets):
    """The same through `.data`, and one parameter alone."""
    return F.mse_loss(outputs, targets) + 0.1 * NET[0].weight.data.square().sum()


def calls_the_callers(module, batch):
    return F.mse_loss(NET(batch["x"]), batch["y"])


def flattened(outputs, targets):
    theta = torch.nn.utils.parameters_to_vector(NET.parameters())
    return F.mse_loss(outputs, targets) + 0.1 * theta.norm()


def everything(*risks):
    """Values, a gradient and a product: whichever comes first refuses."""
    for risk in risks:
        theta = risk.theta
        risk(theta)
        risk.gradient(theta)
        risk.hvp(theta, theta)


class Position(nn.Module):
    """Outputs that depend on where in its batch an example stands."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        return self.net(x) * torch.linspace(1, 2, len(x), dtype=x.dtype)[:, None]


class Unlike(nn.Module):
    """Draws from NumPy's randomness."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        return self.net(x + float(np.random.rand()))


class FirstBatchAlone(nn.Module):
    """Right on the first batch, and random where an input is large."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        return self.net(x) + torch.randn(len(x), 1, dtype=x.dtype) * (x[:, :1] > 2)


class Rolled(nn.Module):
    """Outputs that depend on the next example."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        return self.net(x + 1e-6 * x.roll(1, 0))


def important(module, batch):
    return ((module(batch["x"]) - batch["y"]).square().mean(1) * batch["w"]).sum() / batch["w"].sum()


def in_training(module, batch):
    return squares(module.train(), batch)


def shrinking(module, batch):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.9)
    return squares(module, batch)


def refuse(*arguments, **options):
    return lambda: everything(EmpiricalRisk(*arguments, **options))


# What is built and asked -> (key, got, expected, remedy), each searched for in its own part of the line.
REFUSED = {
    "class weights in a closure": (
        refuse(NET, own_weights, LABELLED), ("loss", r"\d", r"mean", r"count="),
    ),
    "class weights in a closure, one batch": (
        refuse(NET, own_weights, [(X, CLASSES)]), ("loss", r"\d", r"mean", r"count="),
    ),
    "class weights in a closure, single examples": (
        refuse(NET, own_weights, in_batches(X, CLASSES, sizes=[1] * N)), ("loss", r"\d", r"mean", r"count="),
    ),
    "class weights in a closure, batches of one class": (
        refuse(NET, own_weights, in_batches(X, CLASSES, sizes=[4, 4, 3])), ("loss", r"\d", r"mean", r"count="),
    ),
    "ignored targets in a closure": (
        refuse(NET, lambda o, y: F.cross_entropy(o, y, ignore_index=1), LABELLED), ("loss", r"\d", r"mean", r"count="),
    ),
    "the caller's module in a penalty": (
        refuse(NET, penalised, BATCHES), ("loss", r"0\.weight", r"batch_loss", r"."),
    ),
    "the caller's weight by .data": (
        refuse(NET, penalised_by_data, BATCHES), ("loss", r"0\.weight", r"batch_loss", r"."),
    ),
    "the caller's weights in a vector": (
        refuse(NET, flattened, BATCHES), ("loss", r"0\.weight", r"batch_loss", r"."),
    ),
    "the caller's module in batch_loss": (
        refuse(NET, batches=DICTS, batch_loss=calls_the_callers), ("batch_loss", r"0\.weight", r"module", r"module"),
    ),
    "where an example stands": (refuse(Position(), F.mse_loss, BATCHES), ("module", r"", r"independent", r".")),
    "NumPy's randomness": (refuse(Unlike(), F.mse_loss, BATCHES), ("module", r"", r"deterministic", r".")),
    "random in a later batch": (
        refuse(FirstBatchAlone(), F.mse_loss, in_batches(torch.cat([X[:9] * 0.1, X[9:] * 0 + 3]), Y)),
        ("module", r"", r"deterministic", r"."),
    ),
    "neither loss": (refuse(NET, None, BATCHES), ("loss, batch_loss", r"neither", r"batch_loss\(", r".")),
    "both losses": (
        refuse(NET, F.mse_loss, DICTS, batch_loss=squares), ("loss, batch_loss", r"both", r"batch_loss\(", r"."),
    ),
    "a kind of targets without outputs": (
        refuse(NET, batches=DICTS, batch_loss=squares, kind="classes"), ("kind", r"classes", r"loss", r"."),
    ),
    "an unknown reduction": (
        refuse(NET, F.mse_loss, BATCHES, reduction="max"), ("reduction", r"max", r"mean.*sum", r"."),
    ),
    "a reduction that is none": (
        refuse(NET, F.mse_loss, BATCHES, reduction="none"), ("reduction", r"none", r"mean.*sum", r"."),
    ),
    "a mean called a sum": (
        refuse(NET, F.mse_loss, BATCHES, reduction="sum"), ("loss|reduction", r"", r"sum", r"mean|reduction"),
    ),
    "a sum called a mean": (
        refuse(NET, lambda o, y: (o - y).square().sum(), BATCHES, reduction="mean"),
        ("loss|reduction", r"", r"mean", r"sum"),
    ),
    "an unknown precision": (
        refuse(NET, F.mse_loss, BATCHES, precision="fp8"), ("precision", r"fp8", r"ieee.*tf32.*bfloat16", r"."),
    ),
    "no chunk": (refuse(NET, F.mse_loss, BATCHES, chunk_size=0), ("chunk_size", r"0", r"positive|auto", r".")),
    "a chunk by another word": (
        refuse(NET, F.mse_loss, BATCHES, chunk_size="most"), ("chunk_size", r"most", r"positive|auto", r"."),
    ),
    "an unknown name": (
        refuse(NET, F.mse_loss, BATCHES, space="decoder"), ("space|names", r"decoder", r"0\.weight", r"."),
    ),
    "a pattern that fits nothing": (
        refuse(NET, F.mse_loss, BATCHES, space="*.scale"), ("space|names", r"\*\.scale", r"0\.weight", r"."),
    ),
    "no names": (refuse(NET, F.mse_loss, BATCHES, space=[]), ("space", r"", r"", r".")),
    "a negative count": (
        refuse(NET, F.mse_loss, BATCHES, count=lambda batch: -1), ("count", r"-1", r"at least 0|finite", r"."),
    ),
    "a count that is no number": (
        refuse(NET, F.mse_loss, BATCHES, count=lambda batch: "many"), ("count", r"many|str", r"number", r"."),
    ),
    "a count of several numbers": (
        refuse(NET, F.mse_loss, BATCHES, count=lambda batch: torch.ones(3)), ("count", r"", r"number", r"."),
    ),
    "a count that raises": (
        refuse(NET, F.mse_loss, BATCHES, count=lambda batch: batch["mask"].sum()), ("count", r"", r"", r"."),
    ),
    "a count of nothing": (
        refuse(NET, F.mse_loss, BATCHES, count=lambda batch: 0), ("count", r"0", r"positive", r"."),
    ),
    "all targets ignored": (
        refuse(NET, F.cross_entropy, [(X, torch.full((N,), -100))]), ("count|loss", r"0|nan", r"", r"."),
    ),
    "a class that does not exist": (
        refuse(NET, F.cross_entropy, in_batches(X, torch.arange(N) % 5)), ("batches|loss", r"", r"", r"."),
    ),
    "batch_loss reads a key that is not there": (
        refuse(NET, batches=[{"x": X}], batch_loss=squares), ("batch_loss", r"KeyError", r"f\(module, batch\)", r"."),
    ),
    "batch_loss of another shape": (
        refuse(NET, batches=DICTS, batch_loss=lambda m, b: (m(b["x"]) - b["y"]).square()),
        ("batch_loss", r"shape \[\d, 3\]", r"shape \[\]", r"."),
    ),
    "batch_loss gives a dict": (
        refuse(NET, batches=DICTS, batch_loss=lambda m, b: {"loss": squares(m, b)}),
        ("batch_loss", r"dict", r"shape \[\]|tensor", r"."),
    ),
    "batch_loss of no batch": (
        refuse(NET, batches=[{"x": [1, 2]}], batch_loss=squares), ("batches|batch_loss", r"", r"tensors", r"."),
    ),
    "batch_loss by chance": (
        refuse(NET, batches=DICTS, batch_loss=lambda m, b: squares(m, b) * (1 + torch.rand(()))),
        ("batch_loss|module", r"", r"deterministic", r"."),
    ),
    "batch_loss without a gradient": (
        refuse(NET, batches=DICTS, batch_loss=lambda m, b: squares(m, b).detach()),
        ("batch_loss|module|loss|gradient", r"", r"", r"."),
    ),
    "batch_loss with ignored targets": (
        refuse(NET, batches=MASKED, batch_loss=lambda m, b: F.cross_entropy(m(b["x"]), b["y"])),
        ("batch_loss", r"\d", r"mean", r"count="),
    ),
    "batch_loss with weights in the batch": (
        refuse(NET, batches=IMPORTANT, batch_loss=important), ("batch_loss", r"\d", r"mean", r"count="),
    ),
    "batch_loss that switches dropout on": (
        refuse(nn.Sequential(NET, nn.Dropout()), batches=DICTS, batch_loss=in_training),
        ("batch_loss|module", r"", r"deterministic", r"."),
    ),
    "batch_loss that switches batch statistics on": (
        refuse(nn.Sequential(NET, nn.BatchNorm1d(3).double()), batches=DICTS, batch_loss=in_training),
        ("batch_loss|module", r"", r"mean|deterministic|independent", r"."),
    ),
    "batch_loss that takes a step": (
        refuse(NET, batches=DICTS, batch_loss=shrinking), ("batch_loss|module", r"0\.weight", r"function", r"."),
    ),
    "a bound method that takes the batch alone": (
        refuse(NET, batches=DICTS, batch_loss=lambda batch: batch), ("batch_loss", r"TypeError", r"f\(module", r"."),
    ),
    "a neighbour in the batch": (refuse(Rolled(), F.mse_loss, BATCHES), ("module", r"", r"independent", r".")),
    "batch_loss that pairs examples": (
        refuse(NET, batches=DICTS, batch_loss=lambda m, b: torch.cdist(m(b["x"]), b["y"]).mean()),
        ("batch_loss", r"\d", r"mean", r"count="),
    ),
    "batch_loss that adds up": (
        # taken for a sum only where it says so: a sum with a penalty would count the penalty once a batch
        refuse(NET, batches=DICTS, batch_loss=lambda m, b: (m(b["x"]) - b["y"]).square().sum().sqrt()),
        ("batch_loss", r"\d", r"mean", r"count=|reduction"),
    ),
    "a module that takes something else": (
        refuse(network(7, 3), F.mse_loss, BATCHES), ("batches|module", r"\[\d+, 4\]|RuntimeError", r"", r"."),
    ),
    "targets of another shape": (
        refuse(NET, F.mse_loss, in_batches(X, Y[:, :2])), ("batches|loss", r"\[\d+, 2\]", r"", r"."),
    ),
    "targets of another dtype": (
        refuse(NET, F.cross_entropy, in_batches(X, CLASSES.int())), ("batches|loss", r"", r"", r"."),
    ),
    "an argument too many": (
        refuse(NET, F.mse_loss, [((x, x), y) for x, y in BATCHES]), ("batches|module", r"", r"", r"."),
    ),
    "parameters beside a module": (
        refuse(NET, F.mse_loss, BATCHES, parameters={"w": X}), ("parameters", r"", r"", r"."),
    ),
    "a function without parameters": (
        refuse(lambda p, x: x, F.mse_loss, BATCHES), ("module|parameters", r"function", r"", r"parameters="),
    ),
    "a function with a list of parameters": (
        refuse(lambda p, x: x @ p[0], F.mse_loss, BATCHES, parameters=[numbers(4, 3)]),
        ("parameters", r"list", r"name", r"."),
    ),
    "a function with arrays": (
        refuse(lambda p, x: x @ p["w"], F.mse_loss, BATCHES, parameters={"w": np.ones((4, 3))}),
        ("parameters", r"ndarray", r"tensor", r"."),
    ),
    "a class of modules": (
        refuse(nn.Linear, F.mse_loss, BATCHES), ("module|parameters", r"type|Linear", r"", r"."),
    ),
    "a class of losses": (refuse(NET, nn.MSELoss, BATCHES), ("loss", r"MSELoss|class", r"", r".")),
    "an optimizer": (
        refuse(torch.optim.SGD(NET.parameters(), 0.1), F.mse_loss, BATCHES), ("module", r"SGD", r"nn\.Module", r"."),
    ),
    "a data set in place of a loader": (
        refuse(NET, F.mse_loss, TensorDataset(X, Y)), ("batches", r"TensorDataset", r"DataLoader", r"."),
    ),
    "a tensor in place of batches": (refuse(NET, F.mse_loss, X), ("batches", r"Tensor", r"list|DataLoader", r".")),
    "a text": (refuse(NET, F.mse_loss, "train"), ("batches", r"", r"list|DataLoader|inputs, targets", r".")),
    "a dict of batches": (refuse(NET, F.mse_loss, {"x": X, "y": Y}), ("batches", r"", r"list|DataLoader|inputs", r".")),
    "NumPy in a dict": (
        refuse(NET, batches=[{"x": X.numpy(), "y": Y.numpy()}], batch_loss=squares),
        ("batches", r"ndarray", r"tensors?", r"torch\.from_numpy"),
    ),
    "an infinite target": (
        refuse(NET, F.mse_loss, in_batches(X, torch.where(torch.arange(N)[:, None] == 10, torch.inf, Y))),
        ("loss|batches", r"inf|not finite", r"finite", r"."),
    ),
    "NaN in the last batch of a loader": (
        refuse(NET, F.mse_loss, DataLoader(TensorDataset(LAST_NAN, Y), 4)),
        ("loss|batches", r"nan|NaN|not finite", r"finite|numbers", r"."),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_a_line_with_a_remedy(case):
    run, parts = REFUSED[case]
    with untouched(NET, [BATCHES, LABELLED, DICTS]), pytest.raises(Exception) as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        run()
    message = str(caught.value)
    assert caught.type is ValueError, f"{caught.type.__name__}: {message}"
    found = MESSAGE.fullmatch(message)
    assert found, f"not 'key: got X, expected Y: remedy' on a line: {message}"
    key, *rest = parts
    assert re.fullmatch(key, found["key"]), message
    for part, pattern in zip(("got", "expected", "remedy"), rest, strict=True):
        assert re.search(pattern, found[part]), f"{part} says nothing of {pattern}: {message}"


# --- at another time than construction


RISK = EmpiricalRisk(NET, F.mse_loss, BATCHES)
THETA = RISK.theta
LATER = {
    "a short theta": (lambda: RISK(THETA[:-1]), ("theta", r"\[42\]", r"\[43\]", r"risk\.theta")),
    "a theta of integers": (lambda: RISK(THETA.long()), ("theta", r"int64", r"float", r"\.double\(\)")),
    "a theta in bfloat16": (lambda: RISK.gradient(THETA.bfloat16()), ("theta", r"bfloat16", r"float32", r"\.")),
    "a theta with NaN": (lambda: RISK.gradient(THETA * torch.nan), ("theta", r"43 of 43", r"", r"diverge")),
    "a list": (lambda: RISK(THETA.tolist()), ("theta", r"list", r"tensor", r".")),
    "an array": (lambda: RISK(THETA.numpy()), ("theta", r"ndarray", r"tensor", r"torch\.from_numpy|\.")),
    "a named theta": (lambda: RISK(dict(NET.named_parameters())), ("theta", r"dict", r"tensor", r"flatten|\.")),
    "a short vector": (lambda: RISK.hvp(THETA, THETA[:-1]), ("v", r"\[42\]", r"\[43\]", r"flatten")),
    "rows for columns": (
        lambda: RISK.hvp(THETA, torch.ones(2, 43, dtype=torch.float64)), ("v", r"\[2, 43\]", r"\[43, k\]", r"."),
    ),
    "three dimensions": (
        lambda: RISK.hvp(THETA, torch.ones(43, 1, 1, dtype=torch.float64)), ("v", r"\[43, 1, 1\]", r"\[43\]", r"."),
    ),
    "a vector of another dtype": (lambda: RISK.hvp(THETA, THETA.float()), ("v", r"float32", r"float64", r"\.to\(")),
    "no vector": (lambda: RISK.hvp(THETA, None), ("v", r"None", r"tensor|\[43\]", r".")),
    "a complex theta": (lambda: RISK(torch.complex(THETA, THETA)), ("theta", r"complex", r"float", r".")),
    "too many examples": (
        lambda: RISK.draw(12, torch.Generator()), ("size", r"12", r"1 to 11", r"."),
    ),
    "another generator": (lambda: RISK.draw(3, 7), ("generator", r"int|7", r"torch\.Generator", r".")),
    "an unknown part": (lambda: RISK.restricted(THETA, "decoder"), ("names|space", r"decoder", r"0\.weight", r".")),
}  # fmt: skip


@pytest.mark.parametrize("case", LATER)
def test_a_wrong_argument_is_refused(case):
    run, (key, *rest) = LATER[case]
    with pytest.raises(Exception) as caught:
        run()
    message = str(caught.value)
    assert caught.type is ValueError, f"{caught.type.__name__}: {message}"
    found = MESSAGE.fullmatch(message)
    assert found and re.fullmatch(key, found["key"]), message
    for part, pattern in zip(("got", "expected", "remedy"), rest, strict=True):
        assert re.search(pattern, found[part]), f"{part} says nothing of {pattern}: {message}"


# --- the remedies, done: float64 oracles by double backward on the one total loss


def agrees(risk, function, tolerance=1e-9):
    """Values, gradients, products and blocks at the module's theta and at another."""
    own = risk.theta.double()
    for theta in (own, own + 0.1 * numbers(len(own), seed=5)):
        v = numbers(len(own), 3, seed=6)
        assert_close(risk(theta), function(theta).detach(), tolerance, "value")
        assert_close(risk.gradient(theta), zoo.gradient(function, theta), tolerance, "gradient")
        expected = zoo.product(function, theta, v)
        assert_close(risk.hvp(theta, v), expected, tolerance, "block")
        assert_close(risk.hvp(theta, v[:, 0]), expected[:, 0], tolerance, "product")


def functional(net, theta, x, **more):
    """Outputs of a copy of the module at theta [P]."""
    still = network() if net is None else net
    parts = theta.split([p.numel() for p in still.parameters()])
    named = {n: part.view_as(p) for (n, p), part in zip(still.named_parameters(), parts, strict=True)}
    return torch.func.functional_call(still, named, x if isinstance(x, tuple) else (x,), more or None)


def test_class_weights_with_a_count_are_the_total_over_all_examples():
    risk = EmpiricalRisk(NET, own_weights, LABELLED, count=lambda batch: WEIGHTS[batch[1]].sum())
    agrees(risk, lambda theta: own_weights(functional(None, theta, X), CLASSES))


WHOLE_MEANS = dict(
    zip(
        ("weights", "ignored", "nll", "both", "partial", "partial nll", "partial twice", "sum", "smoothed"),
        [
        nn.CrossEntropyLoss(weight=WEIGHTS), nn.CrossEntropyLoss(ignore_index=1), nn.NLLLoss(weight=WEIGHTS),
        nn.CrossEntropyLoss(weight=WEIGHTS, ignore_index=2, label_smoothing=0.0),
        functools.partial(F.cross_entropy, weight=WEIGHTS), functools.partial(F.nll_loss, ignore_index=0),
        functools.partial(functools.partial(F.cross_entropy, weight=WEIGHTS), ignore_index=0),
        nn.CrossEntropyLoss(weight=WEIGHTS, reduction="sum"), nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.2),
        ],
        strict=True,
    )
)  # fmt: skip
SIZES = ("11", "5 4 2", "1 1 1 1 1 1 1 1 1 1 1", "4 4 3", "10 1")


@pytest.mark.parametrize(
    ("name", "chunk", "sizes"), sampled(itertools.product(WHOLE_MEANS, (1, 3, 256), SIZES), 45, seed=0)
)
def test_the_total_does_not_depend_on_batches_and_chunks(name, chunk, sizes):
    loss, sizes = WHOLE_MEANS[name], tuple(map(int, sizes.split()))
    risk = EmpiricalRisk(NET, loss, in_batches(X, CLASSES, sizes=sizes), chunk_size=chunk)
    agrees(risk, lambda theta: loss(functional(None, theta, X), CLASSES))


def test_weights_in_the_batch_with_their_sum_as_count():
    risk = EmpiricalRisk(NET, batches=IMPORTANT, batch_loss=important, count=lambda batch: batch["w"].sum())
    agrees(risk, lambda theta: important(lambda x: functional(None, theta, x), {"x": X, "y": Y, "w": PER_EXAMPLE}))


def test_methods_of_the_module_as_losses():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x):
            return self.net(x)

        def criterion(self, outputs, targets):
            return 2 * F.mse_loss(outputs, targets)

        def step(self, batch):
            return self.criterion(self(batch["x"]), batch["y"])

    net, function = Steps(), lambda theta: 2 * F.mse_loss(functional(None, theta, X), Y)
    agrees(EmpiricalRisk(net, net.criterion, BATCHES), function)
    agrees(EmpiricalRisk(net, batches=DICTS, batch_loss=Steps.step), function)


def test_thetas_and_vectors_of_any_kind():
    risk = EmpiricalRisk(NET, F.mse_loss, BATCHES)
    theta, v = risk.theta, numbers(43, seed=3)
    expected = zoo.product(lambda t: F.mse_loss(functional(None, t, X), Y), theta, v)
    wide = torch.stack([theta, v], 1)
    with torch.inference_mode():
        inferred = theta.clone()
    for at in (theta.clone().requires_grad_(), nn.Parameter(theta.clone()), wide[:, 0], inferred):
        for vector in (v, v.clone().requires_grad_(), wide[:, 1]):
            found = risk.hvp(at, vector)
            assert not found.requires_grad and not risk(at).requires_grad and not risk.gradient(at).requires_grad
            assert_close(found, expected, 1e-12, "product")
    assert risk.hvp(theta, torch.empty(43, 0, dtype=torch.float64)).shape == (43, 0)
    theta += 0.3  # in place: what was kept of the old one is of no use
    expected = zoo.product(lambda t: F.mse_loss(functional(None, t, X), Y), theta, v)
    assert_close(risk.hvp(theta, v), expected, 1e-12, "product")


@pytest.mark.parametrize("chunk", [1, 2, 256])
def test_lengths_that_differ_and_ignored_positions(chunk):
    """Off by 0.5 to 2, and by how much depended on the chunk size: [B, T, C] against [B, C, T] and flattened."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Embedding(5, 3), nn.Tanh(), nn.Linear(3, 4)).double()
    generator = torch.Generator().manual_seed(0)
    batches = []
    for lengths in ([3, 1], [6, 5, 6, 2], [2]):
        tokens = torch.randint(0, 5, (len(lengths), max(lengths)), generator=generator)
        targets = torch.randint(0, 4, tokens.shape, generator=generator)
        for row, length in zip(targets, lengths, strict=True):
            row[length:] = -100
        batches.append((tokens, targets))

    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, tokens):
            return self.net(tokens).transpose(1, 2)

    def function(theta):
        total = 0
        for tokens, targets in batches:
            outputs = functional(net, theta, tokens).flatten(0, 1)
            total = total + F.cross_entropy(outputs, targets.flatten(), reduction="sum")
        return total / 25

    for loss in (F.cross_entropy, nn.CrossEntropyLoss()):
        risk = EmpiricalRisk(Transposed(), loss, batches, chunk_size=chunk)
        assert risk.size == 25
        agrees(risk, function)
    hand = EmpiricalRisk(
        net, lambda o, y: F.cross_entropy(o.flatten(0, 1), y.flatten()), batches, chunk_size=chunk,
        count=lambda batch: (batch[1] != -100).sum(),
    )  # fmt: skip
    agrees(hand, function)


def test_a_penalty_by_batch_loss():
    def penalised(module, batch):
        return squares(module, batch) + 0.1 * sum(p.square().sum() for p in module.parameters())

    risk = EmpiricalRisk(NET, batches=DICTS, batch_loss=penalised)
    agrees(risk, lambda theta: F.mse_loss(functional(None, theta, X), Y) + 0.1 * theta.square().sum())


def test_elastic_weights_by_batch_loss():
    """Kirkpatrick et al. 2017: anchors are copies of the caller's weights, which are constants and no stale reads."""
    anchors = {name: p.detach().clone() for name, p in NET.named_parameters()}
    importance = {name: torch.rand_like(p) for name, p in anchors.items()}

    def elastic(module, batch):
        far = sum((importance[n] * (p - anchors[n]).square()).sum() for n, p in module.named_parameters())
        return squares(module, batch) + 3 * far

    flat = torch.cat([t.flatten() for t in importance.values()])
    own = torch.cat([t.flatten() for t in anchors.values()])
    risk = EmpiricalRisk(NET, batches=DICTS, batch_loss=elastic)
    agrees(risk, lambda theta: F.mse_loss(functional(None, theta, X), Y) + 3 * (flat * (theta - own).square()).sum())


@pytest.mark.parametrize("switches", [False, True])
def test_a_derivative_by_the_inputs_inside_the_loss(switches):
    """A physics loss: (u'(x) + u(x))^2 at collocation points, whether or not the user switches gradients on."""
    net, x = network(1, 6, 1), torch.linspace(0, 1, N, dtype=torch.float64)[:, None]

    def residual(module, batch):
        at = batch["x"].detach().requires_grad_()
        u = module(at)
        (slope,) = torch.autograd.grad(u.sum(), at, create_graph=True)
        return (slope + u).square().mean()

    def switched(module, batch):
        with torch.enable_grad():
            return residual(module, batch)

    risk = EmpiricalRisk(
        net, batches=[{"x": part} for part in x.split([5, 4, 2])], batch_loss=switched if switches else residual
    )

    def function(theta):
        w, b, v, c = theta[:6].view(6, 1), theta[6:12], theta[12:18].view(1, 6), theta[18:]
        hidden = torch.tanh(x @ w.T + b)
        slope = (1 - hidden.square()) * w.T @ v.T
        return (slope + hidden @ v.T + c).square().mean()

    agrees(risk, function)


def test_physics_and_data_in_one_batch():
    """Boundary points and collocation points, of different numbers: what a batch weighs is said."""
    net = network(1, 5, 1)
    inner, edge = numbers(9, 1), numbers(2, 1, seed=1)
    batches = [{"inner": part, "edge": edge} for part in inner.split([5, 4])]

    def physics(module, batch):
        at = batch["inner"].detach().requires_grad_()
        (slope,) = torch.autograd.grad(module(at).sum(), at, create_graph=True)
        return (slope - at).square().mean() + module(batch["edge"]).square().mean()

    risk = EmpiricalRisk(net, batches=batches, batch_loss=physics, count=lambda batch: len(batch["inner"]))

    def function(theta):
        at = inner.clone().requires_grad_()
        (slope,) = torch.autograd.grad(functional(net, theta, at).sum(), at, create_graph=True)
        return (slope - at).square().mean() + functional(net, theta, edge).square().mean()

    agrees(risk, function)


def test_a_graph_with_its_nodes_as_count():
    net = nn.Linear(4, 3).double()
    edges = [torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.tensor([[0, 3], [1, 2]])]
    graphs = [{"x": X[:3], "edges": edges[0], "y": Y[:3]}, {"x": X[3:], "edges": edges[1], "y": Y[3:]}]

    def message(module, graph):
        nodes = torch.tanh(module(graph["x"]))
        source, target = graph["edges"]
        return F.mse_loss(nodes.index_add(0, target, nodes[source]), graph["y"])

    with pytest.raises(ValueError, match=r"^(count|batches|batch_loss): got .*count="):
        everything(EmpiricalRisk(net, batches=graphs, batch_loss=message))
    risk = EmpiricalRisk(net, batches=graphs, batch_loss=message, count=lambda graph: len(graph["x"]))

    def function(theta):
        def loss(graph):
            nodes = torch.tanh(graph["x"] @ theta[:12].view(3, 4).T + theta[12:])
            sums = nodes + torch.zeros_like(nodes).index_add(0, graph["edges"][1], nodes[graph["edges"][0]])
            return (sums - graph["y"]).square().sum()

        return sum(map(loss, graphs)) / (N * 3)

    agrees(risk, function)


def test_the_loss_inside_the_module_and_in_its_outputs():
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x, labels=None):
            logits = self.net(x)
            return {"logits": logits} | ({} if labels is None else {"loss": F.cross_entropy(logits, labels)})

    batches = [{"x": x, "labels": y} for x, y in LABELLED]
    function = lambda theta: F.cross_entropy(functional(None, theta, X), CLASSES)  # noqa: E731
    agrees(EmpiricalRisk(Inside(), batches=batches, batch_loss=lambda m, b: m(**b)["loss"]), function)
    looked = EmpiricalRisk(Inside(), lambda o, y: F.cross_entropy(o["logits"], y), LABELLED)
    agrees(looked, function)
    theta = looked.theta + 0.1
    G = sum_of_outer(theta)
    assert_close(looked.gauss_newton_vp(theta, torch.eye(len(theta), dtype=torch.float64)), G, 1e-9, "Gauss-Newton")


def sum_of_outer(theta):
    """1/N sum_n J_n^T (diag(p) - p p^T) J_n, by the definition."""
    jacobian = torch.autograd.functional.jacobian(lambda t: functional(None, t, X), theta)  # [N, 3, P]
    p = functional(None, theta, X).softmax(1).detach()
    curved = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    return torch.einsum("nip,nij,njq->pq", jacobian, curved, jacobian) / N


def test_a_functional_model():
    parameters = {"w": numbers(4, 3), "b": numbers(3, seed=1), "fixed.scale": torch.tensor(2.0)}
    risk = EmpiricalRisk(
        lambda p, x: torch.tanh(x @ p["w"] + p["b"]) * p["fixed.scale"], F.mse_loss, BATCHES,
        parameters=parameters, space=["w", "b"],
    )  # fmt: skip
    agrees(risk, lambda theta: F.mse_loss(2 * torch.tanh(X @ theta[:12].view(4, 3) + theta[12:]), Y))
    assert risk.space.names == ("w", "b")


@pytest.mark.parametrize(
    ("space", "names"),
    [
        ("*.weight", ("0.weight", "2.weight")), ("2", ("2.weight", "2.bias")), ("0.bias", ("0.bias",)),
        (["2", "*.bias"], ("0.bias", "2.weight", "2.bias")), (("0.weight",), ("0.weight",)),
    ],
)  # fmt: skip
def test_some_parameters_by_name(space, names):
    risk = EmpiricalRisk(NET, F.mse_loss, BATCHES, space=space)
    assert risk.space.names == names
    everything = dict(NET.named_parameters())
    kept = [torch.full((p.numel(),), n in names) for n, p in everything.items()]
    where = torch.cat(kept).nonzero()[:, 0]
    own = torch.cat([p.detach().flatten() for p in NET.parameters()])
    agrees(risk, lambda part: F.mse_loss(functional(None, own.index_put((where,), part), X), Y))


def test_trainable_parameters_unless_said():
    net = network()
    net[0].weight.requires_grad_(False)
    assert EmpiricalRisk(net, F.mse_loss, BATCHES).space.names == ("0.bias", "2.weight", "2.bias")
    assert EmpiricalRisk(net, F.mse_loss, BATCHES, space="0.weight").space.names == ("0.weight",)


@pytest.mark.parametrize("form", ["loss", "batch_loss"])
def test_a_sum_is_the_sum_over_all_examples(form):
    if form == "loss":
        risk = EmpiricalRisk(NET, nn.MSELoss(reduction="sum"), BATCHES)
    else:
        risk = EmpiricalRisk(
            NET, batches=DICTS, reduction="sum", batch_loss=lambda m, b: (m(b["x"]) - b["y"]).square().sum()
        )
    assert risk.reduction == "sum"
    agrees(risk, lambda theta: (functional(None, theta, X) - Y).square().sum())
    assert EmpiricalRisk(NET, F.mse_loss, BATCHES).reduction == "mean"


def test_unchecked_is_as_torch_computes_it():
    """`check=False` leaves out what would be refused, and the cost of finding it."""

    class Reversed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, grad):
            return -grad

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()
            self.calls = [0]

        def forward(self, x):
            self.calls[0] += 1
            return Reversed.apply(self.net(x))

    risk = EmpiricalRisk(Net(), F.mse_loss, BATCHES, check=False)
    function = lambda theta: F.mse_loss(functional(None, theta, X), Y)  # noqa: E731
    assert_close(risk.gradient(risk.theta), -zoo.gradient(function, risk.theta), 1e-12, "gradient")
    unchecked = EmpiricalRisk(NET, own_weights, LABELLED, check=False)
    halves = sum(len(y) * own_weights(functional(None, unchecked.theta, x), y) for x, y in LABELLED) / N
    assert_close(unchecked(unchecked.theta), halves, 1e-12, "value")


class Hard(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 5).double(), nn.Linear(5, 3).double()

    def forward(self, x):
        return self.two(F.hardsigmoid(3 * self.one(x)))


def test_products_by_differences_where_torch_has_no_second_derivative():
    differences = pytest.importorskip("hw1.curvature").__dict__.get("HessianByDifferences")
    if differences is None:
        pytest.skip("hw1.curvature has no HessianByDifferences yet")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Hard()
    risk = EmpiricalRisk(net, F.mse_loss, BATCHES)

    def function(theta):  # the same by operations that can be differentiated twice
        w, b, v, c = theta[:20].view(5, 4), theta[20:25], theta[25:40].view(3, 5), theta[40:]
        return F.mse_loss((3 * (X @ w.T + b) / 6 + 0.5).clamp(0, 1) @ v.T + c, Y)

    v = numbers(43, seed=2)
    found = differences(risk, risk.theta).matvec(v)
    assert_close(found, zoo.product(function, risk.theta, v), 1e-5, "product")
