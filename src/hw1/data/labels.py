"""Pure functions on label vectors: random labels, and subsets that keep the class frequencies."""

from __future__ import annotations

import torch
from torch import Tensor


def corrupt(labels: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Shuffle the labels of a random part of the examples.

    `round(fraction * N)` positions are drawn and the labels found there permuted among them, so class frequencies stay
    exactly as they were, and some chosen examples keep their label by chance (1 in 10 with 10 equal classes). With
    fraction 1 this is the "shuffled labels" randomisation of Zhang et al. 2017, section 2.

    Args:
        labels: [N] classes; left as they are.
        fraction: in [0, 1].
        generator: on the CPU.

    Returns:
        [N] labels.
    """
    chosen = torch.randperm(len(labels), generator=generator)[: round(fraction * len(labels))]
    corrupted = labels.clone()
    corrupted[chosen.sort().values] = labels[chosen]
    return corrupted


def subset(labels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Indices of a random subset; of one class an example, stratified.

    Each class gets its share of `size`, rounded down; the examples left over go to the largest remainders, so every
    class is within one example of its exact share.

    Args:
        labels: [N] integer classes, or [N, ...] values or tokens (then a plain random subset).
        size: at most N.
        generator: on the CPU.

    Returns:
        [size] int64, ascending.
    """
    order = torch.randperm(len(labels), generator=generator)
    if labels.is_floating_point() or labels.ndim > 1:
        return order[:size].sort().values
    classes, counts = labels.unique(return_counts=True)
    shares = counts * size
    quotas = shares // len(labels)
    largest = (shares % len(labels)).argsort(descending=True, stable=True)
    quotas[largest[: size - int(quotas.sum())]] += 1
    shuffled = labels[order]
    chosen = [order[shuffled == label][:quota] for label, quota in zip(classes.tolist(), quotas.tolist(), strict=True)]
    return torch.cat(chosen).sort().values
