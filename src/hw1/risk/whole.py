"""A network over a whole set, as a function of its weights, in one line: what `EmpiricalRisk.metrics` gives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hw1.kinds import Kind, has_accuracy, hits, kind_of
from hw1.risk.batchnorm import has_batch_norm, recompute_statistics
from hw1.risk.counts import Reduction
from hw1.risk.empirical import EmpiricalRisk
from hw1.risk.guard import differentiable, own_copy, random_state_kept
from hw1.risk.nested import cast
from hw1.vectors import ParamSpace

UNTAKEN = (RuntimeError, ValueError, TypeError, IndexError)  # of a module that does not take these inputs


class WholeSet:
    """theta [P] -> the mean loss over all examples and, where they are hit or missed, the accuracy: `columns`, float64.

    The network is evaluated in evaluation mode, on its own copy: the caller's module is left alone. Means weigh every
    example equally, also in a ragged last batch. Weights and inputs take the module's dtype. A network with batch-norm
    gets its statistics recomputed on `statistics_inputs` at every theta, since no trained statistics belong to it.

    It is an `EmpiricalRisk` of one batch, and what that refuses is refused here when it is made, at the module's own
    parameters; those need not be finite: then other ones, drawn at random, take their place in these checks.

    Args:
        module: the network; its own parameters need not be finite.
        loss: (outputs [B, ...], targets [B, ...]) -> mean loss [], in nats for cross-entropy.
        inputs: [N, ...]
        targets: [N, ...]
        batch_size: examples at a time; 250 keeps a small CNN's activations in the cache.
        statistics_inputs: training inputs [M, ...]; needed where the module has batch-norm.
        kind: what targets are, see `hw1.kinds.loss_of`: "classes", "tokens" and "binary" have an accuracy. Unless
            given, what shapes leave no doubt about (`hw1.kinds.kind_of`): integer targets [B, ...] with outputs
            [B, C, ...] are classes, [B, T] with [B, T, V] tokens. With one output a target there is a loss alone: it
            may be a logit ("binary") or the logarithm of a rate ("counts").

    Attributes:
        columns: ("loss",) or ("loss", "accuracy").
        reduction: "mean", or "sum" of a loss that adds up: then the loss is the sum over all examples.

    Raises:
        ValueError: no examples, unequal lengths, batch-norm without `statistics_inputs`, or as for `EmpiricalRisk`: a
            loss that is neither a mean nor a sum over examples, say, or examples that influence each other.

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
        kind: Kind | None = None,
    ) -> None:
        if len(inputs) == 0 or len(inputs) != len(targets):
            raise ValueError(
                f"inputs and targets: got {len(inputs)} and {len(targets)} examples, expected as many, > 0"
            )
        if statistics_inputs is None and has_batch_norm(module):
            raise ValueError("statistics_inputs: got None, expected training inputs: the network has batch-norm")

        network = own_copy(module)
        batch = cast((inputs, targets), next(network.parameters(), inputs))  # once, not at every theta
        finite = all(bool(tensor.isfinite().all()) for tensor in (*network.parameters(), *network.buffers()))
        with random_state_kept(batch[0].device), differentiable(batch[0].device, network), torch.no_grad():
            if not finite:
                _draw(network, None if statistics_inputs is None else cast(statistics_inputs, batch[0])[:batch_size])
            kind = _checked_kind(kind, network, *batch)
        self._risk = EmpiricalRisk(
            module if finite else network, loss, [batch], ParamSpace.of(module),
            kind=kind, chunk_size=batch_size, statistics_inputs=statistics_inputs,
        )  # fmt: skip
        self.columns = self._risk.columns

    @property
    def reduction(self) -> Reduction:
        """Whether the loss is a "mean" or a "sum"."""
        return self._risk.reduction

    def __call__(self, theta: Tensor) -> Tensor:
        """The values of `columns` at theta [P]."""
        return self._risk.metrics(theta)


def _checked_kind(kind: Kind | None, network: nn.Module, inputs: Tensor, targets: Tensor) -> Kind | None:
    """A kind that goes with the shapes of two examples, or, unless given, the one that they say.

    Raises:
        ValueError: it does not.
    """
    try:
        outputs = network(inputs[:2].clone())
    except UNTAKEN:
        return kind  # the risk says what does not fit
    if kind is not None and has_accuracy(kind):
        hits(kind, outputs, targets[:2])  # refuses other shapes
    return kind_of(outputs, targets[:2]) if kind is None and isinstance(outputs, Tensor) else kind


def _draw(network: nn.Module, inputs: Tensor | None) -> None:
    """Finite parameters in place of all, and statistics to them, at which checks can be made."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        fan_in = parameter[0].numel() if parameter.ndim else 1
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(1, fan_in) ** 0.5)
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.nan_to_num_(nan=0.0, posinf=1.0, neginf=-1.0)
    if inputs is not None and has_batch_norm(network):
        recompute_statistics(network, [inputs])
