"""A network over a whole set, as a function of its weights, in one line: `EmpiricalRisk.metrics` without its checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from hw1.risk.batchnorm import has_batch_norm
from hw1.risk.evaluation import Metrics
from hw1.risk.examples import Examples
from hw1.risk.nested import cast
from hw1.vectors import ParamSpace


class WholeSet:
    """theta [P] -> the mean loss over all examples and, for classes, the accuracy: a tensor of `columns`, float64.

    The network is evaluated in evaluation mode, on its own copy: the caller's module is left alone. Means weigh every
    example equally, also in a ragged last batch. Weights and inputs take the module's dtype. A network with batch-norm
    gets its statistics recomputed on `statistics_inputs` at every theta, since no trained statistics belong to it.

    Args:
        module: the network; its own parameters need not be finite.
        loss: (outputs [B, ...], targets [B, ...]) -> mean loss [], in nats for cross-entropy.
        inputs: [N, ...]
        targets: [N, ...]; integers are classes in dimension 1 of the outputs, and accuracy is then reported.
        batch_size: examples at a time; 250 keeps a small CNN's activations in the cache.
        statistics_inputs: training inputs [M, ...]; needed where the module has batch-norm.

    Attributes:
        columns: ("loss",) or ("loss", "accuracy").

    Raises:
        ValueError: no examples, unequal lengths, or batch-norm without `statistics_inputs`.

    Example:
        >>> import torch
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
        if statistics_inputs is None and has_batch_norm(module):
            raise ValueError("statistics_inputs: got None, expected training inputs: the network has batch-norm")

        def evaluate(network: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
            outputs = network(batch[0])
            return outputs, loss(outputs, batch[1])

        batch = cast((inputs, targets), next(module.parameters(), inputs))  # once, not at every theta
        self._metrics = Metrics(
            module, ParamSpace.of(module), evaluate, Examples([batch], batch_size),
            kind=None if targets.is_floating_point() else "classes",
            statistics_inputs=statistics_inputs, batch_size=batch_size,
        )  # fmt: skip
        self.columns = self._metrics.columns

    def __call__(self, theta: Tensor) -> Tensor:
        """The values of `columns` at theta [P]."""
        return self._metrics(theta)
