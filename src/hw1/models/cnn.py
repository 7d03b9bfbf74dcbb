"""Convolutional networks, written as a list of layers."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hw1.models.layers import activation_class, check_width, scaled


class MaxPool(nn.Module):
    """Max pooling with windows of `size` and equal stride, [B, C, H, W] -> [B, C, H // size, W // size].

    Without gradients the maximum is taken over strided views, first of rows, then of columns: several times faster than
    max_pool2d on a CPU, with the same values. With gradients it is max_pool2d, which sends the gradient of a tie to one
    element only.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """The maxima, [B, C, H // size, W // size]."""
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return F.max_pool2d(x, self.size)
        k, height, width = self.size, x.shape[-2] // self.size, x.shape[-1] // self.size
        rows = x[..., 0 : k * height : k, :]
        for i in range(1, k):
            rows = torch.maximum(rows, x[..., i : i + k * height : k, :])
        result = rows[..., 0 : k * width : k]
        for j in range(1, k):
            result = torch.maximum(result, rows[..., j : j + k * width : k])
        return result

    def extra_repr(self) -> str:
        """The window, as torch prints it."""
        return f"size={self.size}"


class _Builder:
    """Appends layers and keeps track of the shape between them."""

    def __init__(self, in_shape: Sequence[int], width: float, activation: str) -> None:
        self.shape = tuple(in_shape)  # (C, H, W), or (features,) once flattened
        self.width = width
        self.activation = activation_class(activation)
        self.layers: list[nn.Module] = []

    def conv(self, kernel: str, same: str, filters: str) -> None:
        if len(self.shape) != 3:
            raise ValueError("a convolution after a dense layer")
        size, padding = int(kernel), "same" if same else "valid"
        channels, height, width = self.shape
        out = scaled(int(filters), self.width)
        if not same:
            height, width = height - size + 1, width - size + 1
        self.layers += [nn.Conv2d(channels, out, size, padding=padding), self.activation()]
        self.shape = (out, height, width)

    def pool(self, window: str) -> None:
        if len(self.shape) != 3:
            raise ValueError("a pooling after a dense layer")
        size = int(window)
        self.layers.append(MaxPool(size))
        self.shape = (self.shape[0], self.shape[1] // size, self.shape[2] // size)

    def dropout(self, whole_channels: str, probability: str) -> None:
        make = nn.Dropout2d if whole_channels else nn.Dropout
        self.layers.append(make(float(probability or 0.5)))

    def batch_norm(self) -> None:
        # The activation stands after the layer it belongs to, so normalise before it.
        make = nn.BatchNorm2d if len(self.shape) == 3 else nn.BatchNorm1d
        if not (self.layers and isinstance(self.layers[-1], self.activation)):
            raise ValueError("bn must follow a convolution or a dense layer")
        self.layers.insert(-1, make(self.shape[0]))

    def dense(self, units: str) -> None:
        self.linear(scaled(int(units), self.width))
        self.layers.append(self.activation())

    def linear(self, out: int) -> None:
        if len(self.shape) == 3:
            self.layers.append(nn.Flatten())
            self.shape = (self.shape[0] * self.shape[1] * self.shape[2],)
        self.layers.append(nn.Linear(self.shape[0], out))
        self.shape = (out,)


# One row a notation: what it looks like, and the method of _Builder that appends it.
_NOTATION: list[tuple[re.Pattern[str], Callable[..., None]]] = [
    (re.compile(r"c([1-9]\d*)(s?)\(([1-9]\d*)\)"), _Builder.conv),
    (re.compile(r"p([1-9]\d*)"), _Builder.pool),
    (re.compile(r"drop(2d)?(0?\.\d+)?"), _Builder.dropout),
    (re.compile(r"bn()"), lambda builder, _: builder.batch_norm()),
    (re.compile(r"([1-9]\d*)"), _Builder.dense),
]


def _append(builder: _Builder, layer: str) -> None:
    for pattern, append in _NOTATION:
        if match := pattern.fullmatch(layer):
            return append(builder, *match.groups())
    raise ValueError("expected c3(10), c5s(16), p2, drop.5, drop2d.5, bn or 32")


_differentiated_once: ContextVar[bool] = ContextVar("differentiated_once", default=False)


@contextmanager
def differentiated_once() -> Iterator[None]:
    """Inside, no gradient of a gradient is taken of what a `Cnn` gives: it may pool ahead of a ReLU, see there."""
    token = _differentiated_once.set(True)
    try:
        yield
    finally:
        _differentiated_once.reset(token)


class Cnn(nn.Sequential):
    """Convolutional network from a list of layers: [B, C, H, W] -> [B, out_features].

    The notation of a layer:

    - `c3(10)`: 3x3 convolution with 10 filters, valid padding, then the activation; `c5s(16)`: same padding
    - `p2`: 2x2 max pooling
    - `drop.5`: dropout with probability 0.5 (`drop` alone means that); `drop2d.5` drops whole channels
    - `bn`: batch normalisation of the layer before it, ahead of its activation
    - `32`: a dense layer of 32 units, then the activation

    A linear layer to `out_features` ends the network. Training runs in channels_last, which is faster on CPU and GPU.

    Args:
        in_shape: (C, H, W) of one image.
        out_features: number of outputs.
        layers: the layers, as above.
        width: factor on every number of filters and units.
        activation: name of the hidden activation, see `hw1.models.layers.ACTIVATIONS`.

    Raises:
        ValueError: a layer cannot be read or leaves nothing of the image.

    Example:
        >>> net = Cnn((1, 28, 28), 10, layers=["c3(10)", "p2", "c3(16)", "p2", 32])
        >>> sum(p.numel() for p in net.parameters())
        14718
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_features: int,
        *,
        layers: Sequence[str | int],
        width: float = 1,
        activation: str = "relu",
    ) -> None:
        if len(in_shape) != 3:
            raise ValueError(f"in_shape: got {tuple(in_shape)}, expected an image (C, H, W): choose model=mlp")
        builder = _Builder(in_shape, check_width(width), activation)
        for layer in layers:
            try:
                _append(builder, str(layer))
            except ValueError as error:
                raise ValueError(f"layers: got {layer!r} in {list(layers)}: {error}") from None
            if min(builder.shape) < 1:
                raise ValueError(
                    f"layers: {layer!r} leaves nothing of the image {tuple(in_shape)}: {builder.shape}; expected less"
                )
        builder.linear(out_features)
        super().__init__(*builder.layers)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (logits for classes), [B, out_features].

        Where nothing is differentiated, or once, a maximum comes before the ReLU ahead of it: the two commute to the
        bit, gradients included, and a ReLU of a quarter of the numbers makes a step 5% faster, an evaluation 7%. Second
        derivatives are sums in another order then, with other last bits, hence not there.
        """
        pool_first = _differentiated_once.get() or not torch.is_grad_enabled()
        layers = list(self)
        while layers:
            layer = layers.pop(0)
            if pool_first and layers and isinstance(layer, nn.ReLU) and isinstance(layers[0], MaxPool):
                x = layers.pop(0)(x)
            x = layer(x)
        return x
