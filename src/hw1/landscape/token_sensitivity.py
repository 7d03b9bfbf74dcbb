"""How fast the loss of a network of tokens rises with what its embedding says of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hw1.risk.guard import differentiable, own_copy, random_state_kept
from hw1.risk.nested import cast


def token_sensitivity(
    module: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    targets: Tensor,
    *,
    batch_size: int = 250,
) -> float:
    """E |d loss / d e|_F, the mean over examples of the gradient's norm by the embedded input e [T, E].

    Tokens are no numbers to differentiate by; what a network makes of them first is (Miyato et al. 2017 perturb it).
    Per unit of the embedding. In evaluation mode, on a copy; an example's loss is the mean over its own tokens.

    Args:
        module: tokens [B, T] -> outputs; it looks them up in an nn.Embedding, and examples do not influence each other.
        loss: (outputs, targets) -> mean loss [].
        inputs: [N, T], integers.
        targets: [N, ...]
        batch_size: examples at a time; it changes memory and speed, not results.

    Raises:
        ValueError: no nn.Embedding gets the inputs as they are.

    Example:
        >>> net = nn.Sequential(nn.Embedding(3, 2), nn.Flatten(), nn.Linear(2, 1, bias=False))
        >>> _ = net[2].weight.data.copy_(torch.tensor([[3.0, 4.0]]))  # the gradient of its output is 5 long
        >>> round(token_sensitivity(net, lambda z, y: z.mean(), torch.tensor([[0], [2]]), torch.zeros(2)), 5)
        5.0
    """
    network = own_copy(module)
    like = next(network.parameters())
    total = 0.0
    with differentiable(like.device, network), random_state_kept(like.device):
        for x, y in zip(torch.split(inputs, batch_size), torch.split(targets, batch_size), strict=True):
            x, y = cast((x, y), like)
            outputs, embedded = _embedded(network, x)
            losses = sum(loss(outputs[i : i + 1], y[i : i + 1]) for i in range(len(x)))
            assert isinstance(losses, Tensor)
            (gradient,) = torch.autograd.grad(losses, embedded)
            total += gradient.flatten(1).norm(dim=1).double().sum().item()
    return total / len(inputs)


def _embedded(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs, and as a leaf what the first embedding made of the inputs."""
    found: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> Tensor | None:
        if found or given[0].shape != x.shape or not torch.equal(given[0], x):
            return None
        found.append(made.detach().requires_grad_())
        return found[0]

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Embedding)]
    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        outputs = network(x)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise ValueError(
            "module: got no nn.Embedding that looks up the inputs, expected one: sensitivity to tokens is a derivative "
            "by what it gives"
        )
    return outputs, found[0]
