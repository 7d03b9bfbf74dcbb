"""Losses beside each kind's own: (outputs, targets, reduction="mean") -> the mean over targets [].

Targets are of one of the kinds in `hw1.kinds`: the classes stand in dimension 1 of outputs [B, C, ...], those of tokens
in the last one of [B, T, V], and of binary targets there is one logit each. Targets of -100, which torch's losses of
classes ignore, are not counted. With `reduction="none"` there is one value a target (of values: an element).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hw1.kinds import IGNORED, Kind

DISCRETE: tuple[Kind, ...] = ("classes", "tokens", "binary")

_Chosen = TypeVar("_Chosen", bound=Callable[..., object])


def suits(*kinds: Kind) -> Callable[[_Chosen], _Chosen]:
    """Say which kinds of targets a loss is for, as its attribute `kinds`; data of others are refused by name."""

    def said(loss: _Chosen) -> _Chosen:
        loss.kinds = kinds  # type: ignore[attr-defined]
        return loss

    return said


@suits(*DISCRETE)
def cross_entropy(
    outputs: Tensor, targets: Tensor, reduction: str = "mean", *, kind: Kind, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy in nats with smoothed labels (Szegedy et al. 2016, section 7).

    Each target is its class with probability 1 - s + s / C and any other one with s / C, s = `label_smoothing`; of
    binary targets C = 2. With s = 0 it is the kind's own loss.

    Raises:
        ValueError: `label_smoothing` is not in [0, 1).

    Example:
        >>> even = cross_entropy(torch.zeros(1, 4), torch.tensor([2]), kind="classes", label_smoothing=0.1)
        >>> round(even.item(), 4)  # ln 4
        1.3863
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing: got {label_smoothing}, expected a share of at least 0, below 1")
    if kind == "binary":
        soft = targets.to(outputs) * (1 - label_smoothing) + label_smoothing / 2
        each = F.binary_cross_entropy_with_logits(_one_each(outputs, targets), soft, reduction="none")
    else:
        each = F.cross_entropy(
            _classes_last(outputs, kind).flatten(0, -2),
            targets.flatten(),
            label_smoothing=label_smoothing,
            ignore_index=IGNORED,
            reduction="none",
        ).reshape(targets.shape)
    return _reduced(each, targets, reduction, kind)


@suits(*DISCRETE)
def focal(outputs: Tensor, targets: Tensor, reduction: str = "mean", *, kind: Kind, gamma: float = 2.0) -> Tensor:
    """Focal loss, -(1 - p)^gamma ln p of the probability p of the target (Lin et al. 2017, eq. 4), in nats.

    Without their weights alpha a class. The mean is over targets, not over the positive ones as in detection.

    Raises:
        ValueError: `gamma` is negative.

    Example:
        >>> round(focal(torch.zeros(1, 2), torch.tensor([0]), kind="classes", gamma=2.0).item(), 4)  # ln 2 / 4
        0.1733
    """
    if gamma < 0:
        raise ValueError(f"gamma: got {gamma}, expected a number of at least 0")
    loss = cross_entropy(outputs, targets, reduction="none", kind=kind)
    missed = (-torch.expm1(-loss)).clamp(min=torch.finfo(loss.dtype).tiny)  # 1 - p; a power below 1 has no slope at 0
    return _reduced(missed**gamma * loss, targets, reduction, kind)


@suits(*DISCRETE)
class ClassWeights(nn.Module):
    """Cross-entropy in nats whose targets weigh by their class: the mean over targets of w[y] (-ln p[y]).

    The weights are scaled such that their mean over the training targets is 1. On the whole training set that is
    torch's weighted mean, sum w l / sum w; on a batch or a test set it is the mean over targets with the same weights,
    so that batches add up to the whole, and a target's gradient is the same whatever else is in its batch.

    Args:
        kind: of the targets.
        class_counts: training targets of each class, [C].
        weight: one number of at least 0 a class, or "balanced": a class weighs N / (C n_c), all classes the same.

    Raises:
        ValueError: weights that are none, not one a class, or balanced with a class that has no training target.

    Example:
        >>> loss = ClassWeights("classes", torch.tensor([3, 1]))
        >>> [round(weight, 3) for weight in loss.weight.tolist()]
        [0.667, 2.0]
    """

    weight: Tensor

    def __init__(
        self, kind: Kind, class_counts: Tensor, weight: list[float] | Literal["balanced"] = "balanced"
    ) -> None:
        super().__init__()
        counts = class_counts.double()
        if weight == "balanced":
            if len(absent := (counts == 0).nonzero().flatten().tolist()):
                raise ValueError(
                    f"weight: got balanced where class {absent[0]} has no training target, expected some of each: give "
                    f"a list of {len(counts)} numbers"
                )
            given = 1 / counts
        else:
            given = torch.tensor([float(one) for one in weight], dtype=torch.float64)
            if len(given) != len(counts) or not bool((given >= 0).all()) or not bool((given * counts).sum() > 0):
                raise ValueError(
                    f"weight: got {weight}, expected {len(counts)} numbers of at least 0, one a class, some of a class "
                    "with training targets above 0"
                )
        self.kind = kind
        scaled = given * counts.sum() / (given * counts).sum()
        self.register_buffer("weight", scaled.to(torch.get_default_dtype()))

    def forward(self, outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """The weighted loss."""
        each = cross_entropy(outputs, targets, reduction="none", kind=self.kind)
        classes = (targets > 0.5).long() if self.kind == "binary" else targets.clamp(min=0)
        return _reduced(each * self.weight[classes], targets, reduction, self.kind)


@suits("values", *DISCRETE)
def mse(outputs: Tensor, targets: Tensor, reduction: str = "mean", *, kind: Kind) -> Tensor:
    """Squared error of values: the mean over examples and features.

    Of classes and tokens the mean over targets and classes of (z_c - [c = y])^2: the outputs z, without a softmax, are
    regressed on one-hot vectors (Hui & Belkin 2021, without their rescaling). Of binary targets (z - y)^2.

    Example:
        >>> mse(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), kind="classes")
        tensor(1.)
    """
    return _reduced_residuals(F.mse_loss, outputs, targets, reduction, kind)


@suits("values", *DISCRETE)
def mae(outputs: Tensor, targets: Tensor, reduction: str = "mean", *, kind: Kind) -> Tensor:
    """Absolute error, with means and one-hot vectors as in `mse`; its Hessian is 0 almost everywhere."""
    return _reduced_residuals(F.l1_loss, outputs, targets, reduction, kind)


@suits("values", *DISCRETE)
def huber(outputs: Tensor, targets: Tensor, reduction: str = "mean", *, kind: Kind, delta: float = 1.0) -> Tensor:
    """Huber's loss (1964): r^2 / 2 of residuals up to `delta`, delta (|r| - delta / 2) beyond; otherwise as `mse`.

    Raises:
        ValueError: `delta` is not positive.
    """
    if delta <= 0:
        raise ValueError(f"delta: got {delta}, expected a number above 0")

    def own(outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
        return F.huber_loss(outputs, targets, reduction=reduction, delta=delta)

    return _reduced_residuals(own, outputs, targets, reduction, kind)


def _reduced_residuals(
    loss: Callable[..., Tensor], outputs: Tensor, targets: Tensor, reduction: str, kind: Kind
) -> Tensor:
    if kind in ("classes", "tokens"):
        outputs = _classes_last(outputs, kind)
        hot = (targets[..., None] == torch.arange(outputs.shape[-1], device=targets.device)).to(
            outputs
        )  # vmap takes it
        return _reduced(loss(outputs, hot, reduction="none").mean(-1), targets, reduction, kind)
    each = loss(_one_each(outputs, targets), targets.to(outputs), reduction="none")
    return _reduced(each, targets, reduction, kind)


def _classes_last(outputs: Tensor, kind: Kind) -> Tensor:
    return outputs.movedim(1, -1) if kind == "classes" else outputs


def _one_each(outputs: Tensor, targets: Tensor) -> Tensor:
    """Outputs in the shape of the targets: torch's losses would stretch [B, 1] against [B] to [B, B]."""
    if outputs.shape in (targets.shape, (*targets.shape, 1)):
        return outputs.reshape(targets.shape)
    raise ValueError(f"outputs: got {list(outputs.shape)} for targets {list(targets.shape)}, expected one a target")


def _reduced(each: Tensor, targets: Tensor, reduction: str, kind: Kind) -> Tensor:
    """One value a target [B, ...] -> as `reduction` says, without those that are ignored."""
    if kind in ("classes", "tokens"):
        counted = targets != IGNORED
        each = torch.where(counted, each, 0.0)
        if reduction == "mean":
            return each.sum() / counted.sum()
    if reduction == "none":
        return each
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction: got {reduction!r}, expected mean, sum or none")
    return each.mean() if reduction == "mean" else each.sum()
