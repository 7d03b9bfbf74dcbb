"""Networks of a user's own: what each returns, and what its signature takes."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn


class Plain(nn.Module):
    """Takes neither of the data's shapes by a name of hw1's."""

    def __init__(self, width: int = 1, depth: int = 1, **others: object) -> None:
        super().__init__()
        self.others = others
        self.layer = nn.LazyLinear(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


class Linear(nn.Module):
    """Logits of an image, in whatever `giving` says."""

    def __init__(self, in_features: int, out_features: int, giving: str = "tensor") -> None:
        super().__init__()
        self.layer, self.giving = nn.Linear(in_features, out_features), giving

    def forward(self, x: Tensor) -> object:
        logits = self.layer(x.flatten(1))
        return {"tensor": logits, "logits": SimpleNamespace(logits=logits), "tuple": (logits, logits)}[self.giving]


class WithNumbers(Linear):
    """Needs numbers where it is made, and where it computes: torch's meta device has none."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.scale = float(self.layer.weight.abs().max())

    def forward(self, x: Tensor) -> object:
        return self.layer(x.flatten(1)) / max(1.0, float(x.max()))


def factory(out_features: int, in_shape: tuple[int, ...], hidden: int = 4) -> nn.Module:
    """A function that makes a network."""
    torch.rand(3)  # draws, as an initialisation does
    return nn.Sequential(
        nn.Flatten(), nn.Linear(torch.Size(in_shape).numel(), hidden), nn.ReLU(), nn.Linear(hidden, out_features)
    )


def fixed() -> nn.Module:
    """A function that makes a network of five outputs, whatever is wanted."""
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 5))


def counted(n_classes: int, **others: int) -> nn.Module:
    """A function with a name of its own for the number of outputs."""
    return nn.Sequential(nn.Flatten(), nn.Linear(192, n_classes, **others))
