"""Any module, any loss, any batches: the right number, or one line that says what is wrong and what to do.

Every combination is compared, in float64 and at two thetas, with double backward on the one total loss over all
examples in one piece; or it must be refused by a line "key: got X, expected Y: remedy". Neither an error of torch nor a
wrong number passes, and the caller's things are as before. A seeded sample runs by default, all of it under `slow`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import random
import re
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import strange_batches
import strange_losses
import strange_modules
import strange_parts
import torch
from expected import Refused, Warned
from strange_batches import FORMS, Form
from strange_losses import LOSSES, SEQUENCES, StrangeLoss
from strange_modules import MODULES, SEQUENCE_MODULES, Stranger
from torch import Tensor, nn
from untouched import untouched

import zoo
from hw1.curvature import (
    EmpiricalRisk,
    GaussNewton,
    Hessian,
    batched,
    dense_hessian,
    extreme_eigenpairs,
    hutchinson_trace,
)

torch.set_num_threads(1)

SAMPLE = 24
# key: got X, expected Y: remedy, on one line
MESSAGE = re.compile(r"(?P<key>[\w., ]+): got (?P<got>.+?), expected (?P<expected>.+?): (?P<remedy>.+)")


# --- the table: (module, loss, form of batches)

ANY = MODULES | SEQUENCE_MODULES
CALM_MODULES = [name for name, one in MODULES.items() if not isinstance(one.expect, Refused)]
CALM_LOSSES = [name for name, one in LOSSES.items() if one.expect is None]
CALM_FORMS = [name for name, one in FORMS.items() if one.expect is None]


def fits(module: str, form: str) -> bool:
    """Whether these inputs can come in this form."""
    kind, only = ANY[module].inputs, FORMS[form].only
    if kind == "graph":
        return form == "one"
    if only is None:
        return True
    single = kind not in ("two", "named", "masked")
    return single and not (only in ("floats", "rounded") and kind in ("tokens", "bytes"))


def combinations() -> list[tuple[str, str, str]]:
    """All modules, losses and forms, each with several of the others, and no two that are refused."""
    table: dict[tuple[str, str, str], None] = {}

    def add(module: str, loss: str, form: str) -> None:
        if fits(module, form):
            table[module, loss, form] = None

    for number, module in enumerate(MODULES):
        refused = isinstance(ANY[module].expect, Refused)
        for turn in range(1 if refused else 2):
            loss = CALM_LOSSES[(5 * number + 17 * turn) % len(CALM_LOSSES)]
            form = CALM_FORMS[(3 * number + 7 * turn) % len(CALM_FORMS)]
            add(module, *(("squares", "list") if refused else (loss, form)))
        if ANY[module].inputs == "graph":
            add(module, "squares", "one")
    plain = ("mlp_tanh", "residual", "mlp_gelu", "gru", "conv2d", "embedding")
    for number, loss in enumerate(LOSSES):
        calm = LOSSES[loss].expect is None
        add("mlp_tanh", loss, "list" if not calm else CALM_FORMS[(7 * number) % len(CALM_FORMS)])
        if not calm:
            add("residual", loss, "singles")
            add("mlp_softplus", loss, "one")
    for number, form in enumerate(FORMS):
        for module, loss in (("mlp_tanh", "cross_entropy"), (plain[1 + number % 5], "squares_sum")):
            add(module, loss, form)
    for module in SEQUENCE_MODULES:
        for loss in SEQUENCES:
            for form in ("list", "loader", "dict"):
                table[module, loss, form] = None
    return list(table)


def losses_of(module: str) -> dict[str, StrangeLoss]:
    return SEQUENCES if module in SEQUENCE_MODULES else LOSSES


TABLE = combinations()
_sampled = set(random.Random(0).sample(range(len(TABLE)), SAMPLE))


def test_the_table_is_as_large_as_it_says():
    modules, losses, forms = (set(column) for column in zip(*TABLE, strict=True))
    assert len(modules) >= 40 and len(losses) >= 15 and len(forms) >= 12 and len(TABLE) >= 120
    right = [one for one in TABLE if not expected_of(one)]
    assert len({module for module, _, _ in right}) >= 40 and len(right) >= 120


def expected_of(combination: tuple[str, str, str]) -> list[Refused]:
    """What may be refused of a combination."""
    module, loss, form = combination
    one = losses_of(module)[loss]
    said: list[Any] = [ANY[module].expect, FORMS[form].expect]
    # With count said, and batches of any structure, a loss that depends on the batch alone cannot be told.
    counts_itself = FORMS[form].unpack is not None and one.count is not None
    if one.expect is not None and not counts_itself:
        said.append(one.expect)
    return [part for part in said if isinstance(part, Refused)]


# --- the oracle, which shares no code with hw1


@dataclasses.dataclass
class Oracle:
    """The one total loss over all examples as a function of theta [P], in float64."""

    net: nn.Module
    loss: Callable[[Any, Tensor], Tensor]  # (what the module returns, targets) -> []
    x: Any
    y: Tensor

    def __post_init__(self) -> None:
        named = list(self.net.named_parameters())
        named = [(name, p) for name, p in named if p.requires_grad] or named
        self.names = [name for name, _ in named]
        self.shapes = [p.shape for _, p in named]
        self.own = torch.cat([p.detach().reshape(-1) for _, p in named])

    def value(self, theta: Tensor) -> Tensor:
        with plain():
            return self(theta.clone()).detach()

    def gradient(self, theta: Tensor) -> Tensor:
        with plain():
            return zoo.gradient(self, theta.clone())

    def product(self, theta: Tensor, v: Tensor) -> Tensor:
        with plain():
            return zoo.product(self, theta.clone(), v.clone())

    def hessian(self, theta: Tensor) -> Tensor:
        with plain():
            return zoo.hessian(self, theta.clone())

    def gauss_newton(self, theta: Tensor) -> Tensor:
        """J^T L'' J of all examples and all that the module returns at once."""
        with plain():
            return self._gauss_newton(theta.clone())

    def __call__(self, theta: Tensor) -> Tensor:
        return self.of_outputs(self.returned(theta))

    def of_outputs(self, returned: Any) -> Tensor:
        return self.loss(strange_batches.walk(returned, lambda part: part * 1), self.y.clone())

    def returned(self, theta: Tensor) -> Any:
        """What the module returns for all examples at once."""
        parts = theta.split([shape.numel() for shape in self.shapes])
        named = {f"net.{n}": part.view(shape) for n, part, shape in zip(self.names, parts, self.shapes, strict=True)}
        inputs = strange_batches.walk(self.x, torch.clone)  # some forwards change them
        return torch.func.functional_call(Around(self.net), named, (inputs,))

    def _gauss_newton(self, theta: Tensor) -> Tensor:
        at = self.returned(theta)
        sizes: list[int] = []
        strange_batches.walk(at, lambda part: sizes.append(part.numel()))

        def flat(theta: Tensor) -> Tensor:
            found: list[Tensor] = []
            strange_batches.walk(self.returned(theta), lambda part: found.append(part.reshape(-1)))
            return torch.cat(found)

        def of_flat(outputs: Tensor) -> Tensor:
            cut = iter(outputs.split(sizes))
            return self.of_outputs(strange_batches.walk(at, lambda part: next(cut).view(part.shape)))

        return zoo.gauss_newton(flat, of_flat, theta)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Gradients and nothing else, whatever is switched on around."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        yield


class Around(nn.Module):
    """spread(net, inputs), as a module that functional_call can put theta into."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Any) -> Any:
        return spread(self.net, x)


def spread(net: Any, x: Any) -> Any:
    """What a user writes by hand: tuples as arguments, mappings as keywords where forward takes them."""
    takes = list(inspect.signature(net.forward).parameters.values())
    variadic = any(one.kind is one.VAR_POSITIONAL for one in takes)
    if isinstance(x, tuple | list) and (len(x) == 1 or len(takes) >= len(x) or variadic):
        return net(*x)
    if isinstance(x, dict) and {one.name for one in takes} >= set(x):
        return net(**x)
    return net(x)


# --- one combination


@dataclasses.dataclass
class Combination:
    """What a caller hands over, and the oracle of it."""

    module: Any
    loss: Any
    batches: Any
    options: dict[str, Any]
    oracle: Callable[[], Oracle]
    stranger: Stranger
    form: Form
    kind: StrangeLoss

    @property
    def loss_is_wrapped(self) -> bool:
        """Whether the loss is called by a function of the user's."""
        return self.form.unpack is not None or isinstance(self.loss, types.FunctionType)

    @classmethod
    def of(cls, name: str, loss: str, form: str) -> Combination:
        stranger, one, shape = ANY[name], losses_of(name)[loss], FORMS[form]
        net = strange_modules.make(name)
        x = strange_parts.inputs(stranger.inputs)
        if shape.only == "rounded":  # the same number in float16
            x = x.half().float()
        y = strange_losses.targets(
            one.targets, (strange_parts.N, 3, 3) if name in SEQUENCE_MODULES else (strange_parts.N, 3)
        )
        kept = shape.kept or strange_parts.N
        batches = shape.make(x, y)
        called = one.make()
        options: dict[str, Any] = {}
        user = called

        if name.startswith("output_"):  # what a module gives is looked at by the loss
            look = stranger.outputs

            def user(outputs: Any, targets: Tensor) -> Tensor:
                return called(look(outputs), targets)

            if one.count is not None:
                options["count"] = lambda batch: one.count(batch[1])
            if one.reduction == "sum":
                options["reduction"] = "sum"
        if shape.unpack is not None:
            unpack = shape.unpack

            def batch_loss(module: nn.Module, batch: Any) -> Tensor:
                inputs, targets = unpack(batch)
                return called(stranger.outputs(spread(module, inputs)), targets)

            options["batch_loss"] = batch_loss
            if one.count is not None:
                options["count"] = lambda batch: one.count(unpack(batch)[1])

        def oracle() -> Oracle:
            a, b = strange_batches.rows(x, 0, kept), y[:kept]
            precise = lambda t: t.double().clone() if t.is_floating_point() else t  # noqa: E731
            total = (one.exact or one.make)()
            total = total.double() if isinstance(total, nn.Module) else total
            if isinstance(getattr(total, "keywords", {}).get("weight"), Tensor):
                total.keywords["weight"] = total.keywords["weight"].double()
            made = strange_modules.oracle_module(name)

            def looked(returned: Any, targets: Tensor) -> Tensor:
                return total(stranger.outputs(returned), targets)

            return Oracle(made, looked, strange_batches.walk(a, precise), precise(b))

        return cls(net, user, batches, options, oracle, stranger, shape, one)

    def risk(self, **more: Any) -> EmpiricalRisk:
        loss = None if "batch_loss" in self.options else self.loss
        return EmpiricalRisk(self.module, loss, self.batches, **self.options, **more)


def assert_close(found: Tensor, expected: Tensor, tolerance: float, what: str, floor: float = 1e-3) -> None:
    """Within that much of the largest magnitude, or of what is given as the least that counts."""
    assert found.shape == expected.shape, f"{what}: {list(found.shape)} for {list(expected.shape)}"
    scale = max(expected.abs().max().item() if expected.numel() else 0.0, floor)
    error = (found.double() - expected).abs().max().item()
    assert error <= tolerance * scale, f"{what}: {error:.3g} off, of {scale:.3g}"


def assert_says(error: BaseException, refused: list[Refused], stage: str) -> None:
    """A ValueError of one line "key: got X, expected Y: remedy" that says what was expected of it at this stage."""
    message = str(error)
    assert type(error) is ValueError, f"{stage}: {type(error).__name__}: {message}"
    assert "\n" not in message, f"{stage}: more than a line: {message}"
    found = MESSAGE.fullmatch(message)
    assert found, f"{stage}: not 'key: got X, expected Y: remedy': {message}"
    fitting = [
        one for one in refused
        if re.fullmatch(one.at, stage) and re.fullmatch(one.key, found["key"]) and re.search(one.says, message)
    ]  # fmt: skip
    assert fitting, f"{stage}: not what is wrong: {message}"


def refused_at(stage: str, refused: list[Refused], run: Callable[[], Any]) -> tuple[bool, Any]:
    """(whether it was refused, as expected; what it gave). Only a ValueError that was expected passes."""
    try:
        result = run()
    except Exception as error:
        assert refused, f"{stage}: right was expected: {type(error).__name__}: {error}"
        assert_says(error, refused, stage)
        return True, None
    return False, result


def check(
    combination: tuple[str, str, str], surroundings: Callable[[], Any] = contextlib.nullcontext, **options: Any
) -> str:
    """Compare one combination with its oracle. What became of it: "right", or "refused at" a stage."""
    refused = expected_of(combination)
    one = Combination.of(*combination)
    warned = isinstance(one.stranger.expect, Warned)
    with warnings.catch_warnings(record=True) as said, untouched(one.module, one.batches):
        warnings.simplefilter("always")
        never = any(part.at == "construction" and not part.or_right for part in refused)
        oracle = None if never else one.oracle()
        with surroundings():
            outcome = compare(one, oracle, refused, options)
    complaints = [str(w.message) for w in said if issubclass(w.category, UserWarning)]
    if warned and outcome == "right":
        assert any(re.search(one.stranger.expect.says, text) for text in complaints), complaints
    must = [part for part in refused if not part.or_right]
    assert outcome != "right" or not must, f"right, and to be refused: {must}"
    return outcome


def compare(one: Combination, oracle: Oracle | None, refused: list[Refused], options: dict[str, Any]) -> str:
    stopped, risk = refused_at("construction", refused, lambda: one.risk(**options))
    if stopped:
        return "refused at construction"
    assert oracle is not None, f"made, and to be refused: {refused}"
    tolerance = max(one.stranger.tolerance, one.kind.tolerance)
    if one.kind.holds and one.loss_is_wrapped:  # float32 in a loss that the risk cannot convert
        tolerance = max(tolerance, 1e-5)
    assert risk.space.size == len(oracle.own), f"theta: {risk.space.size} for {len(oracle.own)}"
    assert risk.reduction == one.kind.reduction or one.form.kept == 1  # of one example both are the same
    own = risk.theta.double()
    assert_close(own, oracle.own, 1e-12, "theta")
    g = torch.Generator().manual_seed(3)
    moved = own + 0.1 * torch.randn(len(own), dtype=torch.float64, generator=g)
    block = torch.randn(len(own), 3, dtype=torch.float64, generator=g)
    same = functools.partial(assert_close, floor=1e-3 * abs(oracle.value(own).item()) + 1e-30)
    thetas = {"moved": moved, "own": own}  # what would be kept of the first would be wrong at the second
    for name, theta in thetas.items():
        stopped, found = refused_at("value", refused, lambda theta=theta: risk(theta))
        if stopped:
            return "refused at value"
        same(found, oracle.value(theta), tolerance, f"value at the {name} theta")
    for name, theta in thetas.items():
        stopped, found = refused_at("gradient", refused, lambda theta=theta: risk.gradient(theta))
        if stopped:
            return "refused at gradient"
        same(found, oracle.gradient(theta), tolerance, f"gradient at the {name} theta")
    for name, theta in thetas.items():
        stopped, found = refused_at("product", refused, lambda theta=theta: risk.hvp(theta, block))
        if stopped:
            return "refused at product"
        expected = oracle.product(theta, block)
        same(found, expected, tolerance, f"block at the {name} theta")
        same(risk.hvp(theta, block[:, 0]), expected[:, 0], tolerance, f"product at the {name} theta")
    if one.form.unpack is None:
        expected = oracle.gauss_newton(moved)
        same(risk.gauss_newton_vp(moved, block), expected @ block, tolerance, "Gauss-Newton block")
        found = GaussNewton(risk, moved).matvec(block[:, 0])
        same(found, expected @ block[:, 0], tolerance, "Gauss-Newton")
    else:
        with pytest.raises(ValueError, match=r"^gauss_newton_vp: got a risk with batch_loss, expected loss\("):
            risk.gauss_newton_vp(moved, block)
    matrix = oracle.hessian(moved)
    spectrum(risk, moved, matrix, tolerance, same)
    # What takes short cuts where it knows the network: the analytic Hessian of chains, many thetas at once.
    same(dense_hessian(risk, moved), matrix, tolerance, "dense Hessian")
    many = batched(risk)
    both = torch.stack([moved, own])
    same(many(both), torch.stack([oracle.value(theta) for theta in both]), tolerance, "values of many thetas")
    same(many.gradient(both)[1], oracle.gradient(own), tolerance, "gradients of many thetas")
    same(many.hessian(both[:1])[0], matrix, tolerance, "Hessians of many thetas")
    coarse = max(2e-3, tolerance)
    if one.stranger.own_dtype:  # in the module's own dtype
        same(risk.metrics(moved)[0], oracle.value(moved), coarse, "value among the metrics")
    name = risk.space.names[-1]  # the others held fixed
    part, theta = risk.restricted(moved, name)
    same(theta, moved[len(moved) - len(theta) :], 1e-12, "restricted theta")
    if len(theta):
        corner = matrix[-len(theta) :, -len(theta) :]
        same(
            part.hvp(theta, block[: len(theta)]),
            corner @ block[: len(theta)],
            tolerance,
            "restricted block",
            floor=matrix.abs().max().item() + 1e-30,
        )
    if one.stranger.own_dtype and risk.theta.dtype == torch.float32:
        single = risk.theta
        same(risk(single), oracle.value(own), coarse, "value in float32")
        same(risk.gradient(single), oracle.gradient(own), coarse, "gradient in float32")
        found = risk.hvp(single, block[:, 0].float())
        same(found, oracle.product(own, block[:, 0]), 5 * coarse, "product in float32")
    return "right"


def spectrum(risk: EmpiricalRisk, theta: Tensor, matrix: Tensor, tolerance: float, same: Callable[..., None]) -> None:
    """All of the matrix in one block, its top pair and its trace."""
    operator = Hessian(risk, theta)
    same(operator.matvec(torch.eye(len(theta), dtype=torch.float64)), matrix, tolerance, "all of the Hessian")
    largest = matrix.abs().max().item()
    if largest < 1e-12:
        return
    values, vectors = torch.linalg.eigh(matrix)
    pairs = extreme_eigenpairs(operator, 1, tol=1e-7, generator=torch.Generator().manual_seed(0))
    loose = max(1e-7, tolerance)
    assert abs(pairs.values[0] - values[-1]) <= loose * values.abs().max(), f"top {pairs.values[0]} for {values[-1]}"
    if len(values) > 1 and values[-1] - values[-2] > 1e-2 * largest:
        alignment = (pairs.vectors[:, 0] @ vectors[:, -1]).abs()
        assert abs(alignment - 1) < max(1e-6, 100 * tolerance), f"top vector {alignment}"
    estimate = hutchinson_trace(operator, probes=24, generator=torch.Generator().manual_seed(4))
    error = abs(estimate.value - matrix.trace().item())
    allowed = 4.5 * estimate.standard_error + max(1e-9, tolerance) * len(matrix) * largest
    assert error <= allowed, f"trace {estimate} for {matrix.trace()}"


@pytest.mark.parametrize(
    "combination",
    [
        pytest.param(one, id="-".join(one), marks=() if number in _sampled else pytest.mark.slow)
        for number, one in enumerate(TABLE)
    ],
)
def test_right_or_refused(combination):
    check(combination)


# --- the same rows in other surroundings


@contextlib.contextmanager
def double_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SURROUNDINGS: dict[str, Callable[[], Any]] = {
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True), "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu"), "no_grad": torch.no_grad, "double": double_by_default,
    "deterministic": deterministic, "device": lambda: torch.device("cpu"),
    "saved_tensors": lambda: torch.autograd.graph.save_on_cpu(),
}  # fmt: skip
ROWS = (
    ("mlp_tanh", "cross_entropy", "list"), ("gru", "squares_sum", "loader"), ("conv2d", "weighted_object", "shuffled"),
    ("encoder_masked", "ignored_object", "dict"), ("weight_norm", "binary", "singles"), ("energy", "huber", "list"),
)  # fmt: skip


def pairs_of(names: Iterable[str]) -> list[Any]:
    """Each name with each row; one row a name by default, the others slow."""
    return [
        pytest.param(name, row, id=f"{name}-{'-'.join(row)}", marks=() if n % 6 == m else pytest.mark.slow)
        for n, name in enumerate(names)
        for m, row in enumerate(ROWS)
    ]


@pytest.mark.parametrize(("where", "row"), pairs_of(SURROUNDINGS))
def test_whatever_the_caller_has_switched_on(where, row):
    assert check(row, SURROUNDINGS[where]) == "right"


OPTIONS: dict[str, dict[str, Any]] = {
    "chunks of one": {"chunk_size": 1}, "chunks of three": {"chunk_size": 3}, "no graph kept": {"keep_graph": False},
    "chunks by themselves": {"chunk_size": "auto"}, "unchecked": {"check": False}, "said": {"reduction": None},
}  # fmt: skip


@pytest.mark.parametrize(("options", "row"), pairs_of(OPTIONS))
def test_whatever_options(options, row):
    given = dict(OPTIONS[options])
    if options == "unchecked":  # then a sum has to be said
        given["reduction"] = losses_of(row[0])[row[1]].reduction
    assert check(row, **given) == "right"


# --- and rows that nobody has chosen


def drawn(count: int, seed: int) -> list[tuple[str, str, str]]:
    """Random combinations of what is right alone, and right together."""
    chance = random.Random(seed)
    names = [name for name in CALM_MODULES if MODULES[name].expect is None]
    found: list[tuple[str, str, str]] = []
    while len(found) < count:
        row = chance.choice(names), chance.choice(CALM_LOSSES), chance.choice(CALM_FORMS)
        nothing = row[2] == "one_of_one" and LOSSES[row[1]].count is not None  # its only example may weigh nothing
        # torch's derivative of exp(A) is off by 1e-7 and more where what flows back is large beside A
        coarse = row[:2] == ("matrix_exponential", "huge")
        if fits(row[0], row[2]) and not nothing and not coarse:
            found.append(row)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_drawn_combinations_are_right(seed):
    for row in drawn(10, seed):
        assert check(row) == "right", row


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CALM_MODULES if name not in ("conv2d", "orthogonal")])
def test_the_oracle_is_the_derivative(name):
    """Double backward against differences of values and gradients, where no kink is next to theta."""
    oracle = Combination.of(name, "log_cosh" if name != "small_and_large" else "squares", CALM_FORMS[0]).oracle()
    theta = oracle.own
    v = torch.randn(len(theta), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert_close(oracle.gradient(theta) @ v, zoo.difference(oracle.value, theta, v), 1e-6, "slope")
    assert_close(oracle.product(theta, v), zoo.difference(oracle.gradient, theta, v), 1e-6, "product")
