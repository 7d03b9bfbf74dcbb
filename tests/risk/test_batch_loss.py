"""Losses of a module and a batch of any structure, what batches weigh, and mini-batches."""

import collections
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import zoo
from hw1.curvature import EmpiricalRisk, Hessian, batched, dense_hessian, extreme_eigenpairs
from hw1.models import Mlp
from hw1.risk.layerwise import LayerwiseRisk
from hw1.risk.nested import examples_in, map_tensors, tensors_of

torch.set_num_threads(1)

Pair = collections.namedtuple("Pair", ["inputs", "targets"])


class MappingLike(collections.UserDict):
    """As HuggingFace's BatchEncoding: no dict, and with something of its own."""

    def __init__(self, data=None, origin=None):
        super().__init__(data)
        self.origin = origin


FORMS = {
    "dict": (lambda x, y: {"x": x, "y": y}, lambda b: (b["x"], b["y"])),
    "user dict": (lambda x, y: MappingLike({"x": x, "y": y}, "here"), lambda b: (b["x"], b["y"])),
    "tuple": (lambda x, y: (x, y), lambda b: b),
    "named tuple": (Pair, lambda b: (b.inputs, b.targets)),
    "nested": (lambda x, y: [{"in": (x, "name")}, [y, None, 3]], lambda b: (b[0]["in"][0], b[1][0])),
}


def assert_same(found, expected, tolerance=1e-10):
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "form"),
    [("tanh", form) for form in FORMS]
    + [(name, "user dict") for name in ("cnn_batch_norm", "channels_last", "rnn", "tied", "attention", "tokens")],
)
def test_batches_of_any_structure(name, form):
    one, (pack, unpack) = zoo.case(name), FORMS[form]

    def f(module, batch):
        x, y = unpack(batch)
        return one.loss(module(x), y)

    batches = [pack(x, y) for x, y in zoo.ragged(one.x, one.y)]
    risk = EmpiricalRisk(one.net, batches=batches, batch_loss=f)
    function = one.function()
    for theta in (one.theta(), one.theta() + 0.1):  # at another theta than the module's own
        v = torch.randn(len(theta), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        expected = zoo.product(function, theta, v)
        assert risk.size == zoo.N and risk.columns == ("loss",)
        torch.testing.assert_close(risk(theta), function(theta), rtol=1e-12, atol=0)
        torch.testing.assert_close(risk.gradient(theta), zoo.gradient(function, theta), rtol=1e-10, atol=1e-13)
        assert_same(risk.hvp(theta, v), expected)
        assert_same(risk.hvp(theta, v[:, 0]), expected[:, 0])
        # metrics are in the module's dtype
        assert risk.metrics(theta).tolist() == pytest.approx([function(theta).item()], rel=1e-5)


def test_float32_and_what_is_built_on_it():
    one = zoo.case("tanh")
    batches = [{"x": x.float(), "y": y} for x, y in zoo.ragged(one.x, one.y)]
    risk = EmpiricalRisk(one.net, batches=batches, batch_loss=lambda m, b: F.cross_entropy(m(b["x"]), b["y"]))
    single = risk.hvp(risk.theta, risk.theta)
    assert single.dtype == torch.float32
    assert_same(single.double(), one.hessian() @ one.theta(), 1e-4)
    assert LayerwiseRisk.of(risk) is None  # the analytic Hessian knows loss(outputs, targets) alone
    assert_same(dense_hessian(risk, risk.theta), one.hessian(), 1e-6)
    assert batched(risk)(one.theta()[None]).item() == pytest.approx(one.function()(one.theta()).item(), rel=1e-6)
    values = torch.linalg.eigvalsh(one.hessian())
    pairs = extreme_eigenpairs(Hessian(risk, one.theta()), 1, generator=torch.Generator().manual_seed(0))
    assert pairs.values.item() == pytest.approx(values[-1].item(), rel=1e-5)


def test_the_module_computes_with_theta_wherever_the_loss_looks():
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    x, y = torch.randn(9, 2).double(), torch.randn(9, 1).double()

    def f(module, batch):
        hidden = module[1](F.linear(batch["x"], module[0].weight, module[0].bias))  # weights by name
        named = dict(module.named_parameters())
        penalty = sum(p.square().sum() for p in named.values()) + named["2.weight"].pow(4).sum()
        return F.mse_loss(module[2](hidden), batch["y"]) + 0.1 * penalty

    risk = EmpiricalRisk(net, batches=[{"x": x[:4], "y": y[:4]}, {"x": x[4:], "y": y[4:]}], batch_loss=f)

    def function(theta):
        w1, b1, w2, b2 = theta[:6].view(3, 2), theta[6:9], theta[9:12].view(1, 3), theta[12:]
        outputs = torch.tanh(x @ w1.T + b1) @ w2.T + b2
        return (outputs - y).square().mean() + 0.1 * (theta.square().sum() + w2.pow(4).sum())

    theta = risk.theta + 0.3
    torch.testing.assert_close(risk(theta), function(theta))
    torch.testing.assert_close(risk.gradient(theta), zoo.gradient(function, theta))
    torch.testing.assert_close(risk.hvp(theta, torch.eye(13).double()), zoo.hessian(function, theta))
    assert risk.metrics(theta).item() == pytest.approx(function(theta).item(), rel=1e-12)
    part, own = risk.restricted(theta, "2")
    torch.testing.assert_close(part.hvp(own, torch.eye(4).double()), zoo.hessian(function, theta)[9:, 9:])


def test_the_callers_module_batches_and_randomness_are_left_alone():
    net = nn.Sequential(nn.Linear(2, 1), nn.Dropout()).double().train()
    batches = [{"x": torch.randn(5, 2), "y": torch.randn(5, 1)}]
    before, state = {k: v.clone() for k, v in batches[0].items()}, [p.clone() for p in net.parameters()]
    randomness = torch.get_rng_state()

    def f(module, batch):
        batch["x"] = batch["x"] * 1  # the structure is the function's own
        return F.mse_loss(module(batch["x"]), batch["y"])

    with torch.no_grad(), torch.autocast("cpu"):
        risk = EmpiricalRisk(net, batches=batches, batch_loss=f)
        assert risk.hvp(risk.theta, risk.theta).dtype == torch.float64
        risk.metrics(risk.theta)
    assert net.training and torch.equal(torch.get_rng_state(), randomness)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), state, strict=True))
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert batches[0].keys() == before.keys()
    assert all(batches[0][k].dtype == torch.float32 and torch.equal(batches[0][k], before[k]) for k in before)


# --- what a batch weighs


def padded(lengths, seed=0):
    """Tokens [B, T] and targets, -100 behind the end of each sequence."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 5, (len(lengths), max(lengths)), generator=generator)
    targets = torch.randint(0, 5, tokens.shape, generator=generator)
    for row, length in zip(targets, lengths, strict=True):
        row[length:] = -100
    return tokens, targets


LENGTHS = [[3, 1], [6, 5, 6, 2], [2]]  # 4, 19 and 2 counted tokens


def counted(batch):
    return (batch[1] != -100).sum()


@pytest.mark.parametrize("way", ["loss", "batch_loss"])
def test_counted_tokens_make_a_mean_over_tokens(way):
    net = zoo.case("tokens").net.double()
    batches = [padded(lengths, seed) for seed, lengths in enumerate(LENGTHS)]
    if way == "loss":
        risk = EmpiricalRisk(net, zoo.token_loss, batches, count=counted, chunk_size=1)  # not split
    else:
        risk = EmpiricalRisk(net, batches=batches, batch_loss=lambda m, b: zoo.token_loss(m(b[0]), b[1]), count=counted)
    assert risk.size == 25
    still, space = zoo.case("tokens").net.double().eval(), risk.space

    def function(theta):  # sum over all tokens, over their number
        losses = []
        for tokens, targets in batches:
            outputs = torch.func.functional_call(still, space.unflatten(theta), (tokens,))
            losses.append(F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="sum"))
        return sum(losses) / 25

    theta = risk.theta
    torch.testing.assert_close(risk(theta), function(theta))
    torch.testing.assert_close(risk.gradient(theta), zoo.gradient(function, theta))
    v = torch.randn(len(theta), dtype=torch.float64)
    assert_same(risk.hvp(theta, v), zoo.hessian(function, theta) @ v)
    assert risk.metrics(theta)[0].item() == pytest.approx(function(theta).item(), rel=1e-12)
    assert LayerwiseRisk.of(risk) is None


def test_class_weights_with_their_sum_as_count():
    torch.manual_seed(0)
    net, weights = Mlp((2,), 3, hidden=[3], activation="tanh").double(), torch.tensor([1.0, 5.0, 0.1]).double()
    x, y = torch.randn(23, 2).double(), torch.randint(0, 3, (23,)).sort().values  # ordered by class
    loss = nn.CrossEntropyLoss(weight=weights)
    risk = EmpiricalRisk(net, loss, zoo.ragged(x, y), count=lambda batch: weights[batch[1]].sum())
    function = zoo.in_one_piece(net, loss, x, y)
    theta = risk.theta
    torch.testing.assert_close(risk(theta), function(theta))
    eye = torch.eye(len(theta)).double()
    torch.testing.assert_close(risk.hvp(theta, eye), zoo.hessian(function, theta))
    gauss_newton = risk.gauss_newton_vp(theta, eye)
    whole = EmpiricalRisk(net, loss, [(x, y)], count=lambda batch: 1)
    torch.testing.assert_close(gauss_newton, whole.gauss_newton_vp(theta, eye))
    assert torch.linalg.eigvalsh(gauss_newton).min() > -1e-12


def test_a_batch_that_weighs_nothing_is_left_out():
    net, (tokens, targets) = zoo.case("tokens").net, padded([4, 2])
    nothing = (tokens, torch.full_like(targets, -100))  # its mean would be 0 / 0
    risk = EmpiricalRisk(net, zoo.token_loss, [(tokens, targets), nothing], count=counted)
    alone = EmpiricalRisk(net, zoo.token_loss, [(tokens, targets)], count=counted)
    assert risk(risk.theta).isfinite() and risk(risk.theta) == alone(risk.theta)


# --- mini-batches


@pytest.mark.parametrize("loader", [False, True])
@pytest.mark.parametrize("count", [None, lambda batch: 2 * len(batch[0])])
def test_a_mini_batch_is_that_many_of_the_examples(loader, count):
    x = torch.arange(23.0).double()[:, None]
    batches = DataLoader(TensorDataset(x, 2 * x), batch_size=6) if loader else zoo.ragged(x, 2 * x)
    risk = EmpiricalRisk(nn.Linear(1, 1).double(), F.mse_loss, batches, count=count)
    seen = collections.Counter()
    generator, randomness = torch.Generator().manual_seed(0), torch.get_rng_state()
    for _ in range(300):
        drawn = risk.draw(5, generator)
        inputs, targets = drawn.examples.whole()
        assert drawn.size == (5 if count is None else 10) and len(set(inputs.flatten().tolist())) == 5
        assert torch.equal(targets, 2 * inputs)
        seen.update(inputs.flatten().tolist())
    assert torch.equal(torch.get_rng_state(), randomness)
    assert set(seen) == set(x.flatten().tolist())
    assert all(abs(number - 300 * 5 / 23) < 4.5 * (300 * 5 / 23) ** 0.5 for number in seen.values())
    theta = drawn.theta
    torch.testing.assert_close(drawn(theta), F.mse_loss(risk.module(inputs), targets))
    torch.testing.assert_close(drawn.hvp(theta, torch.eye(2).double())[0, 0], 2 * inputs.square().mean())
    assert drawn.metrics(theta).item() == pytest.approx(drawn(theta).item(), rel=1e-12)
    whole = risk.draw(23, generator)
    torch.testing.assert_close(whole.gradient(theta), risk.gradient(theta))
    same = [risk.draw(5, torch.Generator().manual_seed(3)).gradient(theta) for _ in range(2)]
    assert torch.equal(*same)


def test_a_mini_batch_does_not_disturb_what_is_kept():
    one = zoo.case("tanh")
    risk = one.risk()
    v = torch.ones_like(risk.theta)
    expected = risk.hvp(risk.theta, v)
    drawn = risk.draw(7, torch.Generator().manual_seed(0))
    assert not torch.equal(drawn.hvp(risk.theta, v), expected)
    assert torch.equal(risk.hvp(risk.theta, v), expected)
    assert not torch.equal(drawn.metrics(risk.theta), risk.metrics(risk.theta))


# --- bad input

NET, X, Y = Mlp((2,), 1, hidden=[3]), torch.randn(7, 2), torch.randn(7, 1)


def squares(module, batch):
    return F.mse_loss(module(batch["x"]), batch["y"])


def no_scalar(module, batch):
    return (module(batch["x"]) - batch["y"]).square()


def noisy(module, batch):
    return squares(module, batch) + torch.rand(())


BATCH = {"x": X, "y": Y}
BAD = {
    "neither": ({"batches": [(X, Y)]}, r"^loss, batch_loss: got neither, expected loss\(outputs, targets\) or batch"),
    "both": ({"loss": F.mse_loss, "batch_loss": squares, "batches": [BATCH]}, r"^loss, batch_loss: got both, expected"),
    "no batches": ({"batch_loss": squares}, r"^batches: got None, expected a list or DataLoader of batches: "),
    "empty": ({"batch_loss": squares, "batches": []}, r"^batches: got no examples, expected at least one"),
    "dict": ({"loss": F.mse_loss, "batches": [BATCH]}, r"^batches: got a batch of dict, expected \(inputs, t"),
    "no tensor": ({"batch_loss": squares, "batches": [{"x": [1, 2]}]}, r"^batches: got a dict without tensors \[B, "),
    "key": ({"batch_loss": squares, "batches": [{"x": X}]}, r"^batch_loss: got KeyError on the first batch \(dict of "),
    "shape": ({"batch_loss": no_scalar, "batches": [BATCH]}, r"^batch_loss: got shape \[7, 1\], expected a tensor of "),
    "number": ({"batch_loss": lambda m, b: 1.0, "batches": [BATCH]}, r"^batch_loss: got float, expected a tensor"),
    "noise": ({"batch_loss": noisy, "batches": [BATCH]}, r"^batch_loss: got .* and then .* on one batch, expected a d"),
    "kind": ({"batch_loss": squares, "batches": [BATCH], "kind": "classes"}, r"^kind: got 'classes' beside batch_loss"),
    "negative": ({"loss": F.mse_loss, "batches": [(X, Y)], "count": lambda b: -1}, r"^count: got -1 for a batch, expe"),
    "nan": ({"loss": F.mse_loss, "batches": [(X, Y)], "count": lambda b: torch.tensor(torch.nan)}, r"^count: got nan"),
    "nothing": ({"loss": F.mse_loss, "batches": [(X, Y)], "count": lambda b: 0}, r"^count: got 0 for every batch, exp"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    options, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        EmpiricalRisk(NET, **options)


def test_what_needs_outputs_is_refused():
    risk = EmpiricalRisk(NET, batches=[BATCH], batch_loss=squares)
    theta = risk.theta
    for name, call in {
        "gauss_newton_vp": lambda: risk.gauss_newton_vp(theta, theta),
        "outputs": lambda: risk.outputs(theta),
        "draw": lambda: risk.draw(3, torch.Generator()),
    }.items():
        with pytest.raises(ValueError, match=rf"^{name}: got a risk with batch_loss, expected loss\(outputs, target"):
            call()


@pytest.mark.parametrize("size", [0, 8])
def test_a_mini_batch_of_another_size_is_refused(size):
    with pytest.raises(ValueError, match=rf"^size: got {size}, expected 1 to 7: there are so many examples$"):
        EmpiricalRisk(NET, F.mse_loss, [(X, Y)]).draw(size, torch.Generator())


def test_other_batches_on_another_pass_are_refused():
    class Growing:
        passes = 0

        def __iter__(self):
            self.passes += 1
            return iter([{"x": X + self.passes, "y": Y}])

    risk = EmpiricalRisk(NET, batches=Growing(), batch_loss=squares)
    with pytest.raises(ValueError, match=r"^batches: got other examples on another pass \(7 after 7\), expected the"):
        risk.gradient(risk.theta)


def test_nested_batches():
    x, y = torch.zeros(3), torch.ones(2, 2)

    class Opaque:
        def __init__(self, tensor):
            self.tensor = tensor

    @dataclasses.dataclass(frozen=True)
    class Open:
        tensor: torch.Tensor

    assert map_tensors(Open(x), lambda tensor: tensor + 1).tensor.tolist() == [1.0, 1.0, 1.0]
    batch = MappingLike({"a": (x, [y]), "b": Pair("name", None), "c": Opaque(x)}, origin="here")
    assert [tensor is other for tensor, other in zip(tensors_of(batch), (x, y), strict=True)] == [True, True]
    moved = map_tensors(batch, lambda tensor: tensor + 1)
    assert type(moved) is MappingLike and moved.origin == "here" and moved["b"] == Pair("name", None)
    assert moved["a"][0].tolist() == [1.0, 1.0, 1.0] and moved["a"][1][0].tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert batch["a"][0] is x and x.tolist() == [0.0, 0.0, 0.0]
    assert examples_in({"scale": torch.tensor(3.0), "x": y}) == 2
