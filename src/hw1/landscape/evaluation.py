"""Loss and accuracy of a network over a whole set, as functions of its weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hw1.landscape.batchnorm import has_batch_norm, recompute_statistics
from hw1.vectors import ParamSpace


class WholeSet:
    """theta [P] -> the mean loss over all examples and, for classes, the accuracy: a tensor of `columns`, float64.

    The network is evaluated in evaluation mode, on its own copy: the caller's module is left alone. Means weigh every
    example equally, also in a ragged last batch. Weights and inputs take the module's dtype. A network with batch-norm
    gets its statistics recomputed on `statistics_inputs` at every theta, since no trained statistics belong to it.

    Args:
        module: the network.
        loss: (outputs [B, ...], targets [B, ...]) -> mean loss [], in nats for cross-entropy.
        inputs: [N, ...]
        targets: [N, ...]; integers are classes, and accuracy is then reported.
        batch_size: examples at a time; 250 keeps a small CNN's activations in the cache.
        statistics_inputs: training inputs [M, ...]; needed where the module has batch-norm.

    Raises:
        ValueError: no examples, unequal lengths, or batch-norm without `statistics_inputs`.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> inputs, targets = torch.randn(5, 2), torch.tensor([0, 1, 0, 1, 1])
        >>> risk = WholeSet(net, nn.functional.cross_entropy, inputs, targets, batch_size=2)
        >>> theta = ParamSpace.of(net).flatten(dict(net.named_parameters()))
        >>> bool(torch.isclose(risk(theta)[0].float(), nn.functional.cross_entropy(net(inputs), targets)))
        True
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        inputs: Tensor,
        targets: Tensor,
        *,
        batch_size: int = 250,
        statistics_inputs: Tensor | None = None,
    ) -> None:
        if len(inputs) == 0 or len(inputs) != len(targets):
            raise ValueError(
                f"inputs and targets: got {len(inputs)} and {len(targets)} examples, expected as many, > 0"
            )
        self._module = copy.deepcopy(module).eval().requires_grad_(False)
        self._space = ParamSpace.of(self._module)
        self._loss = loss
        dtype = next((p.dtype for p in self._module.parameters()), inputs.dtype)
        if inputs.is_floating_point():
            inputs = inputs.to(dtype)
        if targets.is_floating_point():
            targets = targets.to(dtype)
        self._batches = list(zip(torch.split(inputs, batch_size), torch.split(targets, batch_size), strict=True))
        self._statistics: tuple[Tensor, ...] = ()
        if has_batch_norm(self._module):
            if statistics_inputs is None:
                raise ValueError("statistics_inputs: got None, expected training inputs: the network has batch-norm")
            # Equal parts: a last batch of one example has no variance.
            statistics_inputs = statistics_inputs.to(dtype)
            self._statistics = torch.tensor_split(statistics_inputs, math.ceil(len(statistics_inputs) / batch_size))
        classes = not targets.is_floating_point()
        self.columns: tuple[str, ...] = ("loss", "accuracy") if classes else ("loss",)

    @torch.no_grad()
    def __call__(self, theta: Tensor) -> Tensor:
        """The values of `columns` at theta [P]."""
        # Copied into the module, which keeps the memory format that it computes fastest in.
        self._module.load_state_dict(self._space.unflatten(theta), strict=False)
        if self._statistics:
            recompute_statistics(self._module, self._statistics)
        total = torch.zeros(len(self.columns), dtype=torch.float64)
        for x, y in self._batches:
            outputs = self._module(x)
            values = [self._loss(outputs, y).double()]
            if "accuracy" in self.columns:
                values.append((outputs.argmax(1) == y).double().mean())
            total += torch.stack(values).cpu() * len(x)
        return total / sum(len(x) for x, _ in self._batches)
