"""The loss of a run: that of its data, or what the setting `loss` names, checked on a few targets before it trains."""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from hw1.data import DataModule
from hw1.kinds import IGNORED, Kind, Loss, weight_of
from hw1.losses import DISCRETE
from hw1.risk.counts import derived_count
from hw1.risk.mean import ROUNDED
from hw1.settings import ConfigError, RunSettings
from hw1.settings.construct import call, target_of
from hw1.training.partials import partial_of, wanted

_FEW = 8  # targets on which a loss is tried


def loss_of_run(settings: RunSettings, data: DataModule) -> Loss:
    """The loss: (outputs [B, ...], targets [B, ...]) -> mean [].

    A function becomes a partial of its settings, a class is constructed. hw1's own and the user's get what hw1 knows
    where their signature names it and the setting does not: `kind`, `num_classes` and `class_counts`, the training
    targets of each class [C]. A `reduction` that is not "mean" unless said is set to it.

    Raises:
        ConfigError: it cannot be made, or is not for this kind of data.
    """
    node = settings.loss
    if node is None:
        return data.loss
    target, name = target_of(node, "loss"), node["_target_"]
    kinds: tuple[Kind, ...] | None = getattr(target, "kinds", None)
    if kinds is not None and data.kind not in kinds:
        raise ConfigError(
            f"loss: got {name}, which is for {', '.join(kinds)}, with {data.name}, whose targets are {data.kind}; "
            "expected another, or loss=null, the data's own"
        )
    known = {
        "kind": lambda: data.kind,
        "num_classes": lambda: data.out_features,
        "class_counts": lambda: class_counts(data, name),
    }
    given = wanted(target, node, known)
    if not inspect.isclass(target):
        reduction = inspect.signature(target).parameters.get("reduction")
        if reduction is not None and reduction.default != "mean":
            given["reduction"] = "mean"
        return partial_of(node, "loss", 2, **given)
    made: Any = call(node, "loss", **given)
    if not callable(made):
        raise ConfigError(f"loss: got {name}, whose objects cannot be called, expected loss(outputs, targets)")
    if isinstance(made, nn.Module) and any(True for _ in made.parameters()):
        raise ConfigError(
            f"loss: got {name}, which has parameters of its own, expected none: only the network's are trained; make "
            "them buffers, or put them into the model"
        )
    return made  # type: ignore[no-any-return]


def class_counts(data: DataModule, name: str) -> Tensor:
    """Training targets of each class, [C] int64; those that are ignored not among them.

    Raises:
        ConfigError: the data have no classes.
    """
    if data.kind not in DISCRETE:
        raise ConfigError(f"loss: got {name}, which counts classes, with {data.name}, whose targets are {data.kind}")
    data.prepare_data()
    data.setup()
    targets = data.targets("train").flatten()
    if data.kind == "binary":
        return (targets > 0.5).long().bincount(minlength=2)
    return targets[targets != IGNORED].bincount(minlength=data.out_features)


def counted_of(kind: Kind, targets: Tensor) -> float:
    """What a batch weighs: its tokens that count, or its examples less the share of targets that are ignored."""
    if kind != "classes" or targets.is_floating_point():
        return weight_of(kind, targets)
    ignored = int((targets == IGNORED).sum())
    return len(targets) * (1 - ignored / targets.numel()) if ignored else len(targets)


def loss_weight(loss: Loss, kind: Kind, targets: Tensor) -> float:
    """What the loss of a batch weighs in a mean over whole sets: what torch's mean of it counts, else `counted_of`.

    Args:
        loss: of the run; torch's class weights and `ignore_index` count as torch's mean counts them.
        kind: of the targets.
        targets: [B, ...].
    """
    count = derived_count(loss)
    if isinstance(loss, functools.partial | nn.Module) and count is not None:
        return float(count((None, targets)))
    return counted_of(kind, targets)


def check_loss(loss: Loss, settings: RunSettings, data: DataModule) -> None:
    """Refuse a loss that is no mean over these data's targets, on a few of them and outputs that are made up.

    Raises:
        ConfigError: one line that says what it gives.
    """
    assert settings.loss is not None
    name, (outputs, targets) = settings.loss["_target_"], made_up(data)
    with_these = f"loss: got {name}, which"
    on = f"on outputs {list(outputs.shape)} and targets {list(targets.shape)}, as {data.kind} have,"
    outputs.requires_grad_(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of here, it does when it trains, or is refused for
            value = loss(outputs, targets)
    except Exception as error:  # whatever the user's function raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{with_these} fails {on.rstrip(',')}: {reason}; loss=null is the data's own") from error
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ConfigError(f"{with_these} gives {got} {on} expected the mean over examples, one number")
    if not value.requires_grad:
        raise ConfigError(f"{with_these} gives {value.item():.4g} without a gradient, expected one by its outputs")
    cut = len(targets) // 3
    parts = [(outputs[:cut], targets[:cut]), (outputs[cut:], targets[cut:])]
    weights = [loss_weight(loss, data.kind, part) for _, part in parts]
    if cut and all(weights):
        means = [loss(*part).item() for part in parts]
        mean = sum(w * m for w, m in zip(weights, means, strict=True)) / sum(weights)
        if abs(value.item() - mean) > ROUNDED * (1 + abs(mean)):
            raise ConfigError(
                f"{with_these} gives {value.item():.6g} on {len(targets)} examples and {mean:.6g} as the mean of its "
                "parts, expected a mean over examples (reduction='mean'), each by itself"
            )


def made_up(data: DataModule) -> tuple[Tensor, Tensor]:
    """A few training targets, and outputs of the shape that they ask for, float32.

    Returns:
        Outputs [B, C, ...] of classes, [B, T, V] of tokens, [B, out_features] or as the targets of others; targets.
    """
    targets = data.targets("train")[:_FEW]
    if data.kind == "classes":
        shape = (len(targets), data.out_features, *targets.shape[1:])
    elif data.kind == "tokens":
        shape = (*targets.shape, data.out_features)
    else:
        shape = (len(targets), data.out_features) if targets.ndim == 1 else tuple(targets.shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)), targets
