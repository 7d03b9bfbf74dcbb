"""Fully connected networks of any depth."""

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn

from hw1.models.layers import activation_class, check_hidden, check_width, scaled


class Mlp(nn.Sequential):
    """Fully connected network: [B, *in_shape] -> [B, out_features].

    Args:
        in_shape: shape of one example.
        out_features: number of outputs.
        hidden: sizes of the hidden layers, from input to output.
        width: factor on every hidden size.
        activation: name of the hidden activation, see `hw1.models.layers.ACTIVATIONS`.
        dropout: probability of dropping a hidden unit during training.

    Raises:
        ValueError: a size, the width, the activation or the dropout is out of range.

    Example:
        >>> sum(p.numel() for p in Mlp((1,), 1, hidden=[5, 10, 10, 10, 10, 10, 5]).parameters())
        571
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_features: int,
        *,
        hidden: Sequence[int],
        width: float = 1,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        check_hidden(hidden)
        check_width(width)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: got {dropout}, expected a probability in [0, 1)")
        make_activation = activation_class(activation)
        sizes = [math.prod(in_shape), *(scaled(size, width) for size in hidden)]
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in itertools.pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), make_activation()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        layers.append(nn.Linear(sizes[-1], out_features))
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:  # [B, *in_shape] -> [B, out_features]
        """Outputs (logits for classes), [B, out_features]."""
        outputs: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return outputs
