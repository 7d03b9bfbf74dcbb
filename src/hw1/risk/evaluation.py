"""Loss and accuracy over whole sets, as functions of theta: the fast way to values alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from hw1.kinds import Kind, has_accuracy, hits
from hw1.risk.batchnorm import has_batch_norm, recompute_statistics
from hw1.risk.examples import Examples
from hw1.risk.guard import differentiable, own_copy, random_state_kept
from hw1.risk.nested import cast, tensors_of
from hw1.risk.network import put
from hw1.risk.precision import Precision
from hw1.vectors import ParamSpace


class Metrics:
    """theta [P] -> the mean loss over all examples and, where they are hit or missed, the accuracy: `columns`, float64.

    Theta is copied into a copy of the module, which keeps the memory format that it computes fastest in, and its
    dtype. Where it has batch-norm and `statistics_inputs` are given, its statistics are recomputed on them at every
    theta, since no trained statistics belong to it. Theta need not be finite: then the loss is not either. Accuracy is
    the share of all targets that are hit, whatever the loss weighs; negative ones, which no class is, are left out.

    Args:
        module: the network.
        space: the parameters that theta consists of; the others keep the module's values.
        evaluate: (module, batch) -> (outputs, or None where nobody asks for them; mean loss []).
        examples: the batches.
        kind: what targets are; None for a loss alone.
        statistics_inputs: training inputs [M, ...], or batches of them that can be iterated again.
        batch_size: of `statistics_inputs` at a time, at most, where they are one tensor.
        precision: how float32 is multiplied.
    """

    def __init__(
        self,
        module: nn.Module,
        space: ParamSpace,
        evaluate: Callable[[nn.Module, Any], tuple[Tensor | None, Tensor]],
        examples: Examples,
        *,
        kind: Kind | None,
        statistics_inputs: Tensor | Iterable[Tensor] | None,
        batch_size: int,
        precision: Precision = "ieee",
    ) -> None:
        self.columns = columns_of(kind)
        self._module = own_copy(module)
        self._space, self._evaluate, self._examples, self._kind = space, evaluate, examples, kind
        self._precision = precision
        self._like = next(self._module.parameters(), next(tensors_of(examples.first))).detach()
        self._statistics: Iterable[Tensor] | None = None
        if statistics_inputs is not None and has_batch_norm(self._module):
            if not isinstance(statistics_inputs, Tensor):
                self._statistics = statistics_inputs
                return
            # Equal parts: a last batch of one example has no variance.
            inputs = cast(statistics_inputs, self._like)  # tokens stay integers
            self._statistics = torch.tensor_split(inputs, math.ceil(len(inputs) / batch_size))

    def __call__(self, theta: Tensor) -> Tensor:
        """The values of `columns` at theta [P], float64, on the CPU."""
        if theta.shape != (self._space.size,):
            raise ValueError(
                f"theta: got shape {list(theta.shape)}, expected [{self._space.size}]: begin with risk.theta"
            )
        device = self._like.device
        adds_up = self._examples.reduction == "sum"
        with differentiable(device, None, self._precision), random_state_kept(device), torch.no_grad():
            put(self._module, self._space.unflatten(theta.detach()))
            if self._statistics is not None:
                recompute_statistics(self._module, (part.to(self._like) for part in self._statistics))
            total = torch.zeros(len(self.columns), dtype=torch.float64)
            sizes = torch.zeros_like(total)
            for batch, weight in self._examples.chunks(self._like):
                outputs, loss = self._evaluate(self._module, batch)
                values, weights = [loss.double()], [1.0 if adds_up else weight]
                if self._kind is not None and outputs is not None:
                    hit = hits(self._kind, outputs, batch[1])
                    if hit is not None:
                        share, examples = _counted(hit, batch[1])
                        values.append(share)
                        weights.append(examples)
                total += torch.stack(values).cpu() * torch.tensor(weights, dtype=torch.float64)
                sizes += torch.tensor(weights, dtype=torch.float64)
        sizes[0] = 1.0 if adds_up else self._examples.size
        return total / sizes


def _counted(hit: Tensor, targets: Tensor) -> tuple[Tensor, float]:
    """The share of targets that are hit, and how many examples they make up. Negative ones, no classes, are ignored."""
    ignored = targets < 0
    if not ignored.any():
        return hit.double().mean(), len(hit)
    counted = hit[~ignored]
    return counted.double().mean().nan_to_num(0.0), len(hit) * counted.numel() / hit.numel()


def columns_of(kind: Kind | None) -> tuple[str, ...]:
    """What `Metrics` gives for this kind of targets."""
    return ("loss", "accuracy") if has_accuracy(kind) else ("loss",)
