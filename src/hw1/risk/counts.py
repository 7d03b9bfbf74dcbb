"""What a loss says of itself: whether it is a mean or a sum, and over what."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hw1.kinds import IGNORED, loss_of
from hw1.risk.nested import examples_in

Reduction = Literal["mean", "sum"]
Count = Callable[[Any], "float | Tensor"]


def stated_reduction(loss: Callable[..., Tensor] | None) -> str | None:
    """What the loss's `reduction` says, where it has one: of a torch loss object, or a partial's keyword."""
    while isinstance(loss, functools.partial):
        if "reduction" in loss.keywords:
            return _plain(loss.keywords["reduction"])
        loss = loss.func
    if isinstance(loss, nn.modules.loss._Loss):
        return _plain(loss.reduction)
    return None


def _plain(reduction: object) -> str:
    """KLDivLoss's mean over examples is called otherwise."""
    return "mean" if reduction == "batchmean" else str(reduction)


def derived_count(loss: Callable[..., Tensor] | None) -> Count | None:
    """What a pair (inputs, targets) weighs in torch's mean cross-entropy or negative log-likelihood; None elsewhere.

    The sum over targets that are not ignored of their class's weight: torch's denominator. Targets that are
    probabilities [B, C, ...] weigh one each, whatever the class weights.
    """
    options: dict[str, Any] = {}
    while isinstance(loss, functools.partial) and not loss.args:
        options = {**loss.keywords, **options}
        loss = loss.func
    if type(loss) in (nn.CrossEntropyLoss, nn.NLLLoss):
        assert isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss)
        options = {"weight": loss.weight, "ignore_index": loss.ignore_index, **options}
    elif getattr(loss, "__module__", "") == "hw1.losses":  # which ignore targets as torch does, and weigh none less
        if options.get("kind", getattr(loss, "kind", None)) not in ("classes", "tokens"):
            return None
        options = {}
    elif loss not in (F.cross_entropy, F.nll_loss, loss_of("tokens")):
        return None
    weight, ignored = options.get("weight"), options.get("ignore_index", IGNORED)

    def count(batch: Any) -> float | Tensor:
        targets = batch[1]
        if not isinstance(targets, Tensor):
            return examples_in(batch)  # torch will say what is wrong with them
        if targets.is_floating_point():
            return targets.numel() / max(1, targets.shape[1] if targets.ndim > 1 else len(targets))
        counted = targets[targets != ignored]
        if weight is None:
            return counted.numel()
        if not counted.numel() or bool((counted < 0).any()) or int(counted.max()) >= len(weight):
            return counted.numel()  # torch will say what is wrong with the targets
        total: Tensor = weight.detach().double()[counted.to(weight.device)].sum()
        return total

    return count


def count_alike(weights: Sequence[float], examples: Sequence[int], batch: Any) -> bool:
    """Whether every example of every batch weighs the same, as they do where nothing is ignored nor weighted."""
    targets = batch[1]
    if not isinstance(targets, Tensor):
        return False
    positions = math.prod(targets.shape[1:]) if not targets.is_floating_point() else math.prod(targets.shape[2:])
    return all(weight == positions * count for weight, count in zip(weights, examples, strict=True))


def in_dtype(loss: Callable[..., Tensor], dtype: torch.dtype, device: torch.device) -> Callable[..., Tensor]:
    """The loss with the tensors that it holds in a dtype and on a device: a loss module, or a partial's keywords.

    What holds none is returned as it is. Integers keep their dtype.
    """

    def move(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(device, dtype) if value.is_floating_point() else value.to(device)

    if isinstance(loss, functools.partial) and any(isinstance(value, Tensor) for value in _held(loss)):
        keywords: Mapping[str, Any] = {name: move(value) for name, value in loss.keywords.items()}
        return functools.partial(in_dtype(loss.func, dtype, device), *map(move, loss.args), **keywords)
    if isinstance(loss, functools.partial):
        inner = in_dtype(loss.func, dtype, device)
        return loss if inner is loss.func else functools.partial(inner, *loss.args, **loss.keywords)
    if isinstance(loss, nn.Module) and any(True for _ in (*loss.parameters(), *loss.buffers())):
        from hw1.risk.guard import own_copy

        return own_copy(loss).to(device=device, dtype=dtype)
    return loss


def _held(loss: functools.partial[Tensor]) -> list[Any]:
    return [*loss.args, *loss.keywords.values()]


MEANS = (
    F.binary_cross_entropy, F.binary_cross_entropy_with_logits, F.cross_entropy, F.huber_loss, F.l1_loss, F.mse_loss,
    F.nll_loss, F.smooth_l1_loss, F.soft_margin_loss, loss_of("tokens"),
)  # fmt: skip
MEAN_CLASSES = (
    nn.BCELoss, nn.BCEWithLogitsLoss, nn.CrossEntropyLoss, nn.HuberLoss, nn.L1Loss, nn.MSELoss, nn.NLLLoss,
    nn.SmoothL1Loss, nn.SoftMarginLoss,
)  # fmt: skip


def known_mean(loss: Callable[..., Tensor] | None) -> bool:
    """Whether a loss is by its definition a mean over what `derived_count`, or the number of examples, counts.

    Torch's elementwise losses and those of classes; with weights an element, which belong to one batch, they are not.
    """
    if isinstance(loss, functools.partial):
        held = [value for value in _held(loss) if isinstance(value, Tensor)]
        classes = loss.func in (F.cross_entropy, F.nll_loss)
        return known_mean(loss.func) and loss.keywords.get("reduction", "mean") == "mean" and (classes or not held)
    if type(loss) in (nn.CrossEntropyLoss, nn.NLLLoss):
        return stated_reduction(loss) == "mean"
    if type(loss) in MEAN_CLASSES:
        assert isinstance(loss, nn.Module)
        return stated_reduction(loss) == "mean" and not any(True for _ in loss.buffers())
    return any(loss is one for one in MEANS)
