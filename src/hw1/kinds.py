"""The kinds of tasks: what targets are, which loss is theirs, what counts as a hit. Loads torch when it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["classes", "values", "tokens", "binary", "counts"]
IGNORED = -100  # a target that does not count, as in torch's cross_entropy
Loss = Callable[..., "Tensor"]  # (outputs [B, ...], targets [B, ...], reduction="mean") -> []


def loss_of(kind: Kind) -> Loss:
    """The loss of a kind, with torch's `reduction`, in nats but for values.

    - classes: integers, one an example; outputs [B, C, ...], targets [B, ...]; cross-entropy
    - tokens: integers, one a position of a sequence; outputs [B, T, V], targets [B, T]; cross-entropy, mean over those
      that count, which are all but `IGNORED`
    - binary: 0 or 1, of any dtype; one logit a target; binary cross-entropy
    - counts: integers of at least 0; one logarithm of a rate a target; Poisson's, without the term in the targets alone
    - values: numbers; [B, ...] both; squared error

    Where outputs are one a target, they may have a last dimension of 1 that targets have not: [B, 1] and [B].

    Raises:
        ValueError: an unknown kind.
    """
    from torch.nn.functional import cross_entropy, mse_loss

    losses: dict[str, Loss] = {
        "classes": cross_entropy,
        "values": mse_loss,
        "tokens": _token_loss,
        "binary": _binary_loss,
        "counts": _count_loss,
    }
    if kind not in losses:
        raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(losses)}")
    return losses[kind]


def _token_loss(outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    from torch.nn.functional import cross_entropy

    return cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction=reduction)


def _binary_loss(outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(_one_each(outputs, targets), targets.to(outputs), reduction=reduction)


def _count_loss(outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    from torch.nn.functional import poisson_nll_loss

    return poisson_nll_loss(_one_each(outputs, targets), targets.to(outputs), reduction=reduction)


def _one_each(outputs: Tensor, targets: Tensor) -> Tensor:
    """Outputs in the shape of the targets, one each."""
    if outputs.shape in (targets.shape, (*targets.shape, 1)):
        return outputs.reshape(targets.shape)
    raise ValueError(
        f"outputs: got {list(outputs.shape)} for targets {list(targets.shape)}, expected one output a target, "
        f"{list(targets.shape)} or {[*targets.shape, 1]}: several logits a target are kind 'classes' or 'tokens'"
    )


def has_accuracy(kind: Kind | None) -> bool:
    """Whether targets of this kind are hit or missed."""
    return kind in ("classes", "tokens", "binary")


def hits(kind: Kind, outputs: Tensor, targets: Tensor) -> Tensor | None:
    """Whether each target is the one with the largest output, bool in the shape of the targets; None for numbers.

    Of binary targets, whether the logit is on their side of 0.

    Raises:
        ValueError: outputs in another shape than `loss_of` says.

    Example:
        >>> import torch
        >>> hits("classes", torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1])).tolist()
        [True, False]
        >>> hits("binary", torch.tensor([[0.3], [0.8]]), torch.tensor([1, 0])).tolist()
        [True, False]
    """
    if not has_accuracy(kind):
        return None
    if kind == "binary":
        return (_one_each(outputs, targets) > 0) == (targets > 0.5)
    dimension = 1 if kind == "classes" else outputs.ndim - 1
    one_each = (*outputs.shape[:dimension], *outputs.shape[dimension + 1 :])
    if outputs.ndim < 2 or outputs.shape[dimension] == 1 or one_each != tuple(targets.shape):
        raise ValueError(
            f"outputs: got {list(outputs.shape)} for targets {list(targets.shape)}, expected several logits a target "
            f"in dimension {1 if kind == 'classes' else -1}, as {kind} have: one logit a target is kind 'binary'"
        )
    return outputs.argmax(dimension) == targets


def weight_of(kind: Kind | None, targets: Tensor) -> float:
    """What a batch weighs in a mean over examples, or over tokens: how many there are that count.

    Example:
        >>> import torch
        >>> weight_of("classes", torch.tensor([0, 1])), weight_of("tokens", torch.tensor([[IGNORED, 3], [1, 2]]))
        (2, 3)
    """
    return int((targets != IGNORED).sum()) if kind == "tokens" else len(targets)


def constant_metrics(kind: Kind, targets: Tensor) -> dict[str, float]:
    """Loss, and accuracy where there is one, of the best prediction that is the same for all inputs.

    What a network has to beat that has learned anything. Classes and tokens: the entropy of their shares, in nats, and
    the largest share; values: the mean squared distance from the mean target; counts: the mean's Poisson loss.

    Example:
        >>> import torch
        >>> constant_metrics("values", torch.tensor([0.0, 2.0]))
        {'loss': 1.0}
        >>> constant_metrics("classes", torch.tensor([0, 0, 0, 1]))["accuracy"]
        0.75
    """
    import torch

    if kind == "values":
        found = targets.double()
        return {"loss": (found - found.mean(dim=0)).square().mean().item()}
    if kind == "counts":
        rate = targets.double().mean()
        return {"loss": (rate - torch.xlogy(rate, rate)).item()}
    _, counts = (targets > 0.5 if kind == "binary" else targets[targets != IGNORED]).unique(return_counts=True)
    shares = counts.double() / counts.sum()
    return {"loss": -torch.xlogy(shares, shares).sum().item(), "accuracy": shares.max().item()}


def kind_of(outputs: Tensor, targets: Tensor) -> Kind | None:
    """The kind that shapes leave no doubt about, of targets that are integers; None elsewhere.

    Outputs [B, C, ...] of targets [B, ...] are logits of classes, and [B, T, V] of [B, T] those of tokens, unless T = V
    fits both. One output a target may be a logit, the logarithm of a rate or the target itself: None.

    Example:
        >>> import torch
        >>> kind_of(torch.zeros(4, 3), torch.zeros(4).long()), kind_of(torch.zeros(4, 1), torch.zeros(4).long())
        ('classes', None)
        >>> kind_of(torch.zeros(4, 5, 3), torch.zeros(4, 5).long())
        'tokens'
    """
    import torch

    if targets.is_floating_point() or targets.dtype == torch.bool or outputs.ndim != targets.ndim + 1:
        return None
    classes = outputs.shape[1] > 1 and (outputs.shape[0], *outputs.shape[2:]) == tuple(targets.shape)
    tokens = targets.ndim > 1 and outputs.shape[-1] > 1 and outputs.shape[:-1] == targets.shape
    if classes == tokens:
        return None
    return "classes" if classes else "tokens"
