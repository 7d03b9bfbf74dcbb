"""A simple recurrent network that reads an image row by row."""

from collections.abc import Sequence

from torch import Tensor, nn

from hw1.models.layers import check_hidden, check_width, scaled


class Rnn(nn.Module):
    """Elman network over the rows of an image: [B, C, H, W] -> [B, out_features].

    The H rows, each of C * W numbers, are the sequence; the last hidden state goes through one linear layer.

    Args:
        in_shape: (C, H, W), or (H, W).
        out_features: number of outputs.
        hidden: size of the hidden state.
        layers: number of stacked recurrent layers.
        width: factor on the hidden size.
        activation: `relu` or `tanh`, those that torch.nn.RNN computes.

    Raises:
        ValueError: a size, the width or the activation is out of range, or the input has no rows.

    Example:
        >>> sum(p.numel() for p in Rnn((1, 28, 28), 1, hidden=64).parameters())
        6081
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_features: int,
        *,
        hidden: int,
        layers: int = 1,
        width: float = 1,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if len(in_shape) not in (2, 3):
            raise ValueError(f"in_shape: got {tuple(in_shape)}, expected an image (C, H, W): choose model=mlp")
        if activation not in ("relu", "tanh"):
            raise ValueError(f"activation: got {activation!r}, expected relu or tanh (what torch.nn.RNN has)")
        check_hidden([hidden])
        if layers < 1:
            raise ValueError(f"layers: got {layers}, expected a positive integer")
        channels = in_shape[0] if len(in_shape) == 3 else 1
        size = scaled(hidden, check_width(width))
        self.recurrent = nn.RNN(channels * in_shape[-1], size, layers, nonlinearity=activation, batch_first=True)
        self.head = nn.Linear(size, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (logits for classes), [B, out_features]."""
        rows = x.movedim(-2, 1).flatten(2)  # [B, C, H, W] -> [B, H, C * W]
        states, _ = self.recurrent(rows)  # [B, H, hidden]
        outputs: Tensor = self.head(states[:, -1])
        return outputs
