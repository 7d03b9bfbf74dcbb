"""The kinds of tasks: what targets are, which loss is theirs, what counts as a hit. Loads torch when it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["classes", "values", "tokens"]
Loss = Callable[..., "Tensor"]  # (outputs [B, ...], targets [B, ...], reduction="mean") -> []


def loss_of(kind: Kind) -> Loss:
    """The loss of a kind, with torch's `reduction`: cross-entropy in nats for classes and tokens, else squared error.

    Classes are integers, one an example: outputs [B, C, ...], targets [B, ...]. Tokens are one a position of a
    sequence: outputs [B, T, V], targets [B, T]; the mean is over tokens. Values are numbers: [B, ...] both.

    Raises:
        ValueError: an unknown kind.
    """
    from torch.nn.functional import cross_entropy, mse_loss

    losses: dict[str, Loss] = {"classes": cross_entropy, "values": mse_loss, "tokens": _token_loss}
    if kind not in losses:
        raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(losses)}")
    return losses[kind]


def _token_loss(outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    from torch.nn.functional import cross_entropy

    return cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction=reduction)


def hits(kind: Kind, outputs: Tensor, targets: Tensor) -> Tensor | None:
    """Whether each target is the one with the largest output, bool in the shape of the targets; None for values.

    Example:
        >>> import torch
        >>> hits("classes", torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1])).tolist()
        [True, False]
    """
    if kind == "values":
        return None
    return outputs.argmax(1 if kind == "classes" else -1) == targets
