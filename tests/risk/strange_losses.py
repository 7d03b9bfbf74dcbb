"""Losses as people bring them, by name: for outputs [B, 3] (or [B, T, 3], where they say so), and what becomes of them.

The total over all examples is the loss itself, called once on all of them in one piece: what a user means by it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from expected import Refused, at_once, by_gradient, by_product
from torch import Tensor, nn

WEIGHTS = torch.tensor([1.0, 5.0, 0.1])


@dataclass(frozen=True)
class StrangeLoss:
    """A loss (outputs, targets) -> [] and the kind of its targets."""

    make: Callable[[], Any]
    targets: str
    reduction: str = "mean"
    count: Callable[[Tensor], Any] | None = None  # targets -> what they weigh, where it is not their number
    derived: bool = False  # whether a risk finds that count by itself
    expect: Refused | None = None
    tolerance: float = 1e-9  # of the largest magnitude, in float64
    holds: bool = False  # tensors in float32
    exact: Callable[[], Any] | None = None  # makes the same without rounding


def targets(kind: str, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Targets of that kind for outputs of this shape [N, ..., 3]."""
    g = torch.Generator().manual_seed(2)
    classes = torch.randint(0, 3, tuple(shape[:-1]), generator=g)
    values = torch.randn(*shape, generator=g)
    made: dict[str, Callable[[], Tensor]] = {
        "classes": lambda: classes,
        "ordered": lambda: classes.sort(dim=0).values,
        "ignored": lambda: torch.where(torch.rand(classes.shape, generator=g) < 0.4, -100, classes),
        "values": lambda: values,
        "bits": lambda: (values > 0).float(),
        "signs": lambda: values.sign(),
        "probabilities": lambda: values.softmax(-1),
        "log_probabilities": lambda: values.log_softmax(-1),
        "counts": lambda: torch.randint(0, 4, tuple(shape), generator=g).float(),
        "numbers": lambda: values[..., 0],
        "labels": lambda: torch.stack([classes, torch.full_like(classes, -1), torch.full_like(classes, -1)], -1),
    }
    return made[kind]()


def weight_of(y: Tensor) -> Tensor:
    return WEIGHTS.double()[y].sum()


def counted(y: Tensor) -> Tensor:
    return (y != -100).sum()


def ctc(outputs: Tensor, y: Tensor) -> Tensor:
    """Outputs [B, T, 3]: log-probabilities over blank and two labels; one label a sequence."""
    times, size = outputs.shape[1], len(outputs)
    return F.ctc_loss(
        outputs.log_softmax(-1).transpose(0, 1), 1 + y[:, :1] % 2, torch.full((size,), times), torch.ones(size).long(),
        reduction="sum",
    ) / size  # fmt: skip


def contrastive(outputs: Tensor, y: Tensor) -> Tensor:
    """Every example against all others of its batch (van den Oord et al. 2018)."""
    return F.cross_entropy(outputs @ y.T, torch.arange(len(outputs)))


def closes_over_weights(outputs: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs, y, weight=WEIGHTS.to(outputs))


def in_place_on_outputs(outputs: Tensor, y: Tensor) -> Tensor:
    return outputs.sub_(y).square().mean()


def in_place_on_targets(outputs: Tensor, y: Tensor) -> Tensor:
    return (outputs - y.mul_(0.5)).square().mean()


class Temperature(nn.Module):
    """A loss with a parameter of its own, which theta does not hold."""

    def __init__(self) -> None:
        super().__init__()
        self.log_t = nn.Parameter(torch.tensor(0.3))

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs * self.log_t.exp(), y)


class Composed(nn.Module):
    """A loss of changed outputs."""

    def __init__(self, loss: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.loss, self.change = loss, change

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.loss(self.change(outputs), y)


class Teacher(nn.Module):
    """Targets of another network: constants."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            self.net = nn.Linear(3, 3)

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs - torch.tanh(self.net(y))).square().mean()


class OwnClass(nn.CrossEntropyLoss):
    """Another formula under torch's name."""

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        return super().forward(2 * outputs, y)


def derivative_by_outputs(outputs: Tensor, y: Tensor) -> Tensor:
    """The squared slope of an energy of the outputs, as score matching takes it."""
    with torch.enable_grad():
        at = outputs if outputs.requires_grad else outputs.detach().requires_grad_()
        (slope,) = torch.autograd.grad((at - y).cosh().sum(), at, create_graph=True)
    return slope.square().mean()


def raises(outputs: Tensor, y: Tensor) -> Tensor:
    assert False, "no good"  # noqa: B011


class Noisy(nn.Module):
    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs - y).square().mean() * (1 + 0.1 * torch.rand(()))


def with_reduction(outputs: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A user's own loss that knows the word."""
    per_example = (outputs - y).pow(4).mean(-1).flatten()
    return per_example.sum() if reduction == "sum" else per_example.mean()


NOT_A_MEAN = r"mean"

LOSSES: dict[str, StrangeLoss] = {
    "cross_entropy": StrangeLoss(lambda: F.cross_entropy, "classes"),
    "cross_entropy_object": StrangeLoss(nn.CrossEntropyLoss, "classes"),
    "smoothed": StrangeLoss(lambda: functools.partial(F.cross_entropy, label_smoothing=0.1), "classes"),
    "smoothed_object": StrangeLoss(lambda: nn.CrossEntropyLoss(label_smoothing=0.2), "classes"),
    "weighted_object": StrangeLoss(
        lambda: nn.CrossEntropyLoss(weight=WEIGHTS.clone()), "ordered", count=weight_of, derived=True, holds=True),
    "weighted_partial": StrangeLoss(
        lambda: functools.partial(F.cross_entropy, weight=WEIGHTS.clone()), "ordered", count=weight_of, derived=True,
        holds=True,
    ),
    "ignored_object": StrangeLoss(nn.CrossEntropyLoss, "ignored", count=counted, derived=True),
    "ignored_function": StrangeLoss(lambda: F.cross_entropy, "ignored", count=counted, derived=True),
    "ignored_zero": StrangeLoss(
        lambda: nn.CrossEntropyLoss(ignore_index=0), "classes", count=lambda y: (y != 0).sum(), derived=True
    ),
    "weighted_sum": StrangeLoss(
        lambda: nn.CrossEntropyLoss(weight=WEIGHTS.clone(), reduction="sum"), "ordered", reduction="sum", holds=True),
    "probabilities": StrangeLoss(nn.CrossEntropyLoss, "probabilities"),
    "cross_entropy_sum": StrangeLoss(lambda: nn.CrossEntropyLoss(reduction="sum"), "classes", reduction="sum"),
    "cross_entropy_partial_sum": StrangeLoss(
        lambda: functools.partial(F.cross_entropy, reduction="sum"), "classes", reduction="sum"
    ),
    "nll": StrangeLoss(lambda: lambda o, y: F.nll_loss(o.log_softmax(-1), y), "classes"),
    "nll_weighted": StrangeLoss(
        lambda: nn.NLLLoss(weight=WEIGHTS.clone()), "ordered", count=weight_of, derived=True, holds=True),
    "binary": StrangeLoss(lambda: F.binary_cross_entropy_with_logits, "bits"),
    "binary_weighted": StrangeLoss(
        lambda: nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0, 0.5, 3.0])), "bits", holds=True
    ),
    "binary_sum": StrangeLoss(lambda: nn.BCEWithLogitsLoss(reduction="sum"), "bits", reduction="sum"),
    "binary_of_probabilities": StrangeLoss(lambda: lambda o, y: F.binary_cross_entropy(o.sigmoid(), y), "bits"),
    "squares": StrangeLoss(lambda: F.mse_loss, "values"),
    "squares_object": StrangeLoss(nn.MSELoss, "values"),
    "squares_sum": StrangeLoss(lambda: nn.MSELoss(reduction="sum"), "values", reduction="sum"),
    "half_squares_by_hand": StrangeLoss(lambda: lambda o, y: 0.5 * (o - y).square().sum() / len(o), "values"),
    "sum_by_hand": StrangeLoss(lambda: lambda o, y: (o - y).square().sum(), "values", reduction="sum"),
    "own_reduction": StrangeLoss(lambda: with_reduction, "values"),
    "own_reduction_sum": StrangeLoss(
        lambda: functools.partial(with_reduction, reduction="sum"), "values", reduction="sum"
    ),
    "absolute": StrangeLoss(lambda: F.l1_loss, "values"),
    "smooth_absolute": StrangeLoss(lambda: nn.SmoothL1Loss(beta=0.5), "values"),
    "huber": StrangeLoss(lambda: functools.partial(F.huber_loss, delta=0.7), "values"),
    "poisson": StrangeLoss(lambda: nn.PoissonNLLLoss(full=True), "counts"),
    "gaussian": StrangeLoss(
        lambda: lambda o, y: F.gaussian_nll_loss(o[..., 0], y, F.softplus(o[..., 1])), "numbers"
    ),
    "kl_batchmean": StrangeLoss(
        lambda: lambda o, y: F.kl_div(o.log_softmax(-1), y, reduction="batchmean"), "probabilities"
    ),
    "kl_mean": StrangeLoss(
        lambda: lambda o, y: F.kl_div(o.log_softmax(-1), y, reduction="mean", log_target=True), "log_probabilities"
    ),
    "soft_margin": StrangeLoss(lambda: F.soft_margin_loss, "signs"),
    "hinge": StrangeLoss(lambda: lambda o, y: F.relu(1 - o * y).mean(), "signs"),
    "cosine": StrangeLoss(lambda: lambda o, y: (1 - F.cosine_similarity(o, y)).mean(), "values"),
    "focal": StrangeLoss(
        lambda: lambda o, y: ((1 - torch.exp(-F.cross_entropy(o, y, reduction="none"))) ** 2
                              * F.cross_entropy(o, y, reduction="none")).mean(), "classes",
    ),
    "log_cosh": StrangeLoss(lambda: lambda o, y: (o - y).cosh().log().mean(), "values"),
    "quantile": StrangeLoss(
        lambda: lambda o, y: torch.maximum(0.9 * (y - o), -0.1 * (y - o)).mean(), "values"
    ),
    "temperature": StrangeLoss(Temperature, "classes", tolerance=1e-6, holds=True),  # which may stay in float32
    "scalar_of_double": StrangeLoss(lambda: lambda o, y: (o - y).square().mean().reshape(()), "values"),
    "kl_object": StrangeLoss(
        lambda: Composed(nn.KLDivLoss(reduction="batchmean"), lambda o: o.log_softmax(-1)), "probabilities"
    ),
    "kl_object_alone": StrangeLoss(lambda: nn.KLDivLoss(reduction="batchmean"), "probabilities"),
    "kl_partial": StrangeLoss(
        lambda: functools.partial(F.kl_div, reduction="batchmean", log_target=True), "log_probabilities"
    ),
    "upcast": StrangeLoss(  # as language models do
        lambda: lambda o, y: F.cross_entropy(o.float(), y), "classes", tolerance=1e-5, exact=lambda: F.cross_entropy
    ),
    "tiny": StrangeLoss(lambda: lambda o, y: 1e-9 * (o - y).square().mean(), "values"),
    "huge": StrangeLoss(lambda: lambda o, y: 1e9 * (o - y).square().mean(), "values"),
    "nominal_batch": StrangeLoss(lambda: lambda o, y: (o - y).square().sum() / 256, "values", reduction="sum"),
    "with_a_constant": StrangeLoss(lambda: lambda o, y: (o - y).square().mean() + 3, "values"),
    "negative": StrangeLoss(lambda: lambda o, y: -(o * y).tanh().mean(), "values"),
    "teacher": StrangeLoss(lambda: Teacher(), "values", holds=True),
    "own_class": StrangeLoss(lambda: OwnClass(), "classes"),
    "in_slices": StrangeLoss(
        lambda: lambda o, y: torch.stack([(a - b).square().mean() for a, b in zip(o, y, strict=True)]).mean(), "values"
    ),
    "derivative_by_outputs": StrangeLoss(lambda: derivative_by_outputs, "values"),
    # --- what is noticed
    "an_integer": StrangeLoss(
        lambda: lambda o, y: (o.argmax(-1) != y).sum(), "classes", reduction="sum",
        expect=Refused(
            "construction|gradient", "module|loss|gradient", r"int64|depends on none|gradient|derivative", True
        ),
    ),
    "of_shape_one": StrangeLoss(
        lambda: lambda o, y: (o - y).square().mean().reshape(1), "values", expect=at_once("loss", r"shape \[1\]")
    ),
    "raises": StrangeLoss(lambda: raises, "values", expect=at_once("loss|batches", r"no good")),
    "multi_margin": StrangeLoss(
        lambda: nn.MultiMarginLoss(p=2), "classes", expect=by_product(r"HessianByDifferences")
    ),
    "multi_label_margin": StrangeLoss(
        nn.MultiLabelMarginLoss, "labels", expect=by_product(r"HessianByDifferences")
    ),
    "no_reduction": StrangeLoss(
        lambda: nn.CrossEntropyLoss(reduction="none"), "classes", expect=at_once("loss", r"shape \[.*reduction|mean"),
    ),
    "closed_weights": StrangeLoss(
        lambda: closes_over_weights, "ordered", count=weight_of, expect=at_once("loss", r"count="),
    ),
    "contrastive": StrangeLoss(
        lambda: contrastive, "values", expect=at_once("loss", NOT_A_MEAN)
    ),
    "root_mean_square": StrangeLoss(
        lambda: lambda o, y: (o - y).square().mean().sqrt(), "values", expect=at_once("loss", NOT_A_MEAN)
    ),
    "correlation": StrangeLoss(
        lambda: lambda o, y: 1 - torch.corrcoef(torch.stack([o[..., 0].flatten(), y.flatten()]))[0, 1], "numbers",
        expect=at_once("loss", r"mean|finite"),
    ),
    "worst_example": StrangeLoss(
        lambda: lambda o, y: (o - y).square().flatten(1).mean(1).max(), "values",
        expect=at_once("loss", NOT_A_MEAN),
    ),
    "dice": StrangeLoss(
        lambda: lambda o, y: 1 - 2 * (o.sigmoid() * y).sum() / (o.sigmoid().sum() + y.sum() + 1), "bits",
        expect=at_once("loss", NOT_A_MEAN),
    ),
    "noisy": StrangeLoss(Noisy, "values", expect=at_once("loss|module", r"deterministic")),
    "a_float": StrangeLoss(
        lambda: lambda o, y: (o - y).square().mean().item(), "values", expect=at_once("loss", r"got float")
    ),
    "nothing": StrangeLoss(lambda: lambda o, y: None, "values", expect=at_once("loss", r"got None|NoneType")),
    "a_vector": StrangeLoss(
        lambda: lambda o, y: (o - y).square().flatten(1).mean(1), "values", expect=at_once("loss", r"got shape \[")
    ),
    "broadcast": StrangeLoss(
        lambda: F.mse_loss, "numbers", expect=at_once("batches|loss", r"shape|size|target")
    ),
    "in_place_on_outputs": StrangeLoss(
        lambda: in_place_on_outputs, "values", expect=at_once("loss|batches", r"in ?place|change", or_right=True)
    ),
    "in_place_on_targets": StrangeLoss(
        lambda: in_place_on_targets, "values", expect=at_once("loss|batches", r"in ?place|change", or_right=True)
    ),
    "detached": StrangeLoss(
        lambda: lambda o, y: F.mse_loss(o.detach(), y), "values",
        expect=by_gradient(r"detach|graph|gradient|derivative"),
    ),
    "accuracy": StrangeLoss(  # constant almost everywhere, and no gradient: right as zero, or refused
        lambda: lambda o, y: (o.argmax(-1) != y).float().mean(), "classes",
        expect=Refused("construction|gradient", "module|loss|gradient", r"depends on none|gradient|derivative", True),
        tolerance=1e-6,
    ),
    "not_finite": StrangeLoss(
        lambda: lambda o, y: (o - y).square().mean() / 0, "values", expect=at_once("loss", r"finite"),
    ),
    "not_callable": StrangeLoss(lambda: "mse", "values", expect=at_once("loss", r"expected")),
}  # fmt: skip

# Of outputs [B, T, 3].
SEQUENCES: dict[str, StrangeLoss] = {
    "tokens": StrangeLoss(lambda: lambda o, y: F.cross_entropy(o.flatten(0, 1), y.flatten()), "classes"),
    "tokens_sum": StrangeLoss(
        lambda: lambda o, y: F.cross_entropy(o.flatten(0, 1), y.flatten(), reduction="sum"), "classes", reduction="sum"
    ),
    "tokens_transposed": StrangeLoss(lambda: lambda o, y: F.cross_entropy(o.transpose(1, 2), y), "classes"),
    "tokens_counted": StrangeLoss(
        lambda: lambda o, y: F.cross_entropy(o.flatten(0, 1), y.flatten()), "ignored", count=counted,
        expect=at_once("loss", r"count="),
    ),
    "squares": StrangeLoss(lambda: F.mse_loss, "values"),
    "binary": StrangeLoss(lambda: F.binary_cross_entropy_with_logits, "bits"),
    "ctc": StrangeLoss(lambda: ctc, "classes", expect=by_product(r"HessianByDifferences")),
}  # fmt: skip
