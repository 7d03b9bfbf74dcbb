"""A small transformer that reads tokens and predicts the next ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hw1.models.layers import check_width, scaled

_STD = 0.02  # of initial weights; those that add to the stream, divided by sqrt(2 blocks) (Radford et al. 2019)


class Attention(nn.Module):
    """Causal self-attention, [B, T, E] -> [B, T, E].

    Computed by torch's plain formula, softmax(q k^T / sqrt(d)) v: its fused kernels have no second derivative, and on a
    GPU their gradients change from run to run.
    """

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.inputs = nn.Linear(size, 3 * size)
        self.output = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        """What each position has gathered from those up to itself, [B, T, E]."""
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.inputs(x).chunk(3, dim=2))
        with sdpa_kernel(SDPBackend.MATH):
            dropout = self.dropout if self.training else 0.0
            found = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)  # [B, heads, T, d]
        mixed: Tensor = self.output(found.transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """Attention and a dense layer, each behind a layer norm and added to the stream: [B, T, E] -> [B, T, E]."""

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.attention = Attention(size, heads, dropout)
        self.up, self.down = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """The stream, [B, T, E]."""
        x = x + self.drop(self.attention(self.norm_1(x)))
        added: Tensor = self.drop(self.down(F.gelu(self.up(self.norm_2(x)))))
        return x + added


class Gpt(nn.Module):
    """A decoder-only transformer (Radford et al. 2019): tokens [B, T] int64 -> logits [B, T, out_features].

    Positions are learned, norms come first, the last one ahead of the output layer, which has no bias.

    Args:
        in_shape: (T,), the longest sequence.
        out_features: number of tokens in the vocabulary.
        blocks: number of blocks.
        heads: of attention in each.
        size: E, numbers a position, a multiple of `heads`.
        width: factor on `size`, which is rounded to a multiple of `heads`.
        dropout: of attention and of what each block adds; 0 for none.
        tied: whether the output layer's weights are the embedding's (Press & Wolf 2017).

    Raises:
        ValueError: a value is out of range; the message begins with its name.

    Example:
        >>> net = Gpt((16,), 27, blocks=2, heads=2, size=8)
        >>> net(torch.zeros(3, 16).long()).shape, sum(p.numel() for p in net.parameters())
        (torch.Size([3, 16, 27]), 2104)
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_features: int,
        *,
        blocks: int,
        heads: int,
        size: int,
        width: float = 1,
        dropout: float = 0.0,
        tied: bool = True,
    ) -> None:
        super().__init__()
        if len(in_shape) != 1:
            raise ValueError(f"in_shape: got {tuple(in_shape)}, expected sequences (T,): choose dataset=characters")
        for name, value in (("blocks", blocks), ("heads", heads), ("size", size)):
            if value < 1:
                raise ValueError(f"{name}: got {value}, expected a positive integer")
        if size % heads:
            raise ValueError(f"size: got {size}, expected a multiple of heads={heads}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: got {dropout}, expected a probability from 0 to less than 1")
        size = heads * scaled(size // heads, check_width(width))
        self.tokens = nn.Embedding(out_features, size)
        self.positions = nn.Embedding(in_shape[0], size)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(size, heads, dropout) for _ in range(blocks)))
        self.norm = nn.LayerNorm(size)
        self.head = nn.Linear(size, out_features, bias=False)
        self.apply(_initialise)
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.output.weight", "down.weight")):
                nn.init.normal_(parameter, std=_STD / math.sqrt(2 * blocks))
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the token that follows each position, [B, T, out_features]."""
        positions = torch.arange(x.shape[1], device=x.device)
        h = self.drop(self.tokens(x) + self.positions(positions))
        logits: Tensor = self.head(self.norm(self.blocks(h)))
        return logits


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
