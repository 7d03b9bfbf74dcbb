"""How float32 is multiplied: said by a risk, whatever the process has set, and as the process had it afterwards."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Literal

import torch

# What torch can be told, and how far its products are rounded (bits of the significand, the hidden one counted):
# Kalamkar et al. 2019 (bfloat16), NVIDIA 2020 (TF32).
Precision = Literal["ieee", "tf32", "bfloat16"]
_BITS: dict[Precision, int] = {"ieee": 24, "tf32": 11, "bfloat16": 8}

# torch's tree of `fp32_precision`, parents first; a node that holds "none" follows its parent.
# By these names, since `torch.backends.mkldnn.fp32_precision = x` sets the root (torch 2.15).
_NODES = [
    ("generic", "all"),
    ("cuda", "all"), ("cuda", "matmul"), ("cuda", "conv"), ("cuda", "rnn"),
    ("mkldnn", "all"), ("mkldnn", "matmul"), ("mkldnn", "conv"), ("mkldnn", "rnn"),
]  # fmt: skip


def check_precision(precision: str) -> Precision:
    """The precision, if it is one.

    Raises:
        ValueError: it is not.
    """
    for known in _BITS:
        if precision == known:
            return known
    raise ValueError(
        f"precision: got {precision!r}, expected 'ieee', 'tf32' or 'bfloat16': how float32 is multiplied (for float64, "
        "give theta.double())"
    )


@contextlib.contextmanager
def multiplied_in(precision: Precision) -> Iterator[None]:
    """Inside, float32 matrix products, convolutions and recurrent layers multiply in `precision`, on any device.

    "ieee": products of float32. "tf32": of 11 bits, summed in float32, where the hardware has it. "bfloat16": "ieee",
    for what `forward_in` leaves in float32. Nothing of float64 changes.

    Belongs around all that computes: the forward, its backward, and every later product on a graph that was kept, since
    a kernel asks when it runs. The setting is the process's, so that autograd's threads see it; a second thread's
    `multiplied_in` changes it too. One that ends while another computes is noticed at the end. May be nested.

    Afterwards all is as before, also where an error passes: every `fp32_precision` of torch.backends, those that
    follow their parent still following it, and the older `allow_tf32` and `get_float32_matmul_precision`, which are not
    touched. They may raise inside, as torch lets them where old and new disagree; so does `cudnn.flags(...)`, which
    reads them.

    Raises:
        ValueError: an unknown precision; or something inside set another one and left it.

    Example:
        >>> with multiplied_in("tf32"):
        ...     torch.backends.cudnn.conv.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision
        ('tf32', 'tf32')
    """
    wanted = "tf32" if check_precision(precision) == "tf32" else "ieee"
    read, write = torch._C._get_fp32_precision_getter, torch._C._set_fp32_precision_setter
    before: list[tuple[tuple[str, str], str]] = []
    try:
        # Only a node that does not follow its parent is written to, and what it reads is what it holds. The leaves
        # themselves could not be restored: what they read may be their parent's, and the initial state of cudnn's
        # (TF32 unless a parent says otherwise) cannot be written.
        for node in _NODES:
            if (held := read(*node)) != wanted:
                before.append((node, held))
                write(*node, wanted)
        yield
        for node in _NODES:
            if (found := read(*node)) != wanted:
                raise ValueError(
                    f"precision: got {found!r} for {'.'.join(node)} at the end, expected {wanted!r} throughout: let "
                    "neither forward nor another thread change torch.backends while a risk computes"
                )
    finally:
        for node, held in reversed(before):
            write(*node, held)


@contextlib.contextmanager
def forward_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Inside, with "bfloat16", layers compute in bfloat16 by torch's autocast; otherwise autocast is off.

    Belongs around the forward alone: not around the loss, nor backward, whose kernels take the dtype that the forward
    chose (torch's advice for autocast). What comes out may be bfloat16: `cast(outputs, theta)` brings the loss its
    float32. Parameters stay float32, and float64 is left alone.

    Args:
        precision: as in `multiplied_in`, which stands around this.
        device: on which the forward runs.

    Raises:
        ValueError: an unknown precision.

    Example:
        >>> layer = torch.nn.Linear(2, 1)
        >>> with forward_in("bfloat16", torch.device("cpu")):
        ...     layer(torch.ones(1, 2)).dtype, layer.double()(torch.ones(1, 2).double()).dtype
        (torch.bfloat16, torch.float64)
    """
    enabled = check_precision(precision) == "bfloat16"
    # Without autocast's cache of weights: a copy that it made under no_grad has no way back to theta.
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled, cache_enabled=False):
        yield


@contextlib.contextmanager
def without_cudnn() -> Iterator[None]:
    """Inside, torch's own kernels in place of cuDNN's, whose recurrent layers have no second backward.

    Nothing else changes; `torch.backends.cudnn.flags(enabled=False)` would also allow TF32.
    """
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


def tolerance(dtype: torch.dtype, precision: Precision) -> float:
    """How far two ways to compute the same outputs or gradients may differ, relative to their largest magnitude.

    The square root of the spacing of numbers at 1, of those that are multiplied: 1.5e-8 in float64; in float32 3.5e-4
    ("ieee"), 0.031 ("tf32"), 0.088 ("bfloat16"). Rounding grows with depth; the square root leaves room for it and
    stays far below what is wrong by a factor. Measured on a trained ResNet-18 on an H200: gradients and Hessian
    products are 1.2e-4, 1.0e-2 and 4.9e-2 from float64's; outputs in TF32 of 512 images at once and of halves differ by
    3e-4 of 0.39, 8e-4.

    It is no bound where what is compared cancels: the gradient of an untrained ResNet-18 is off by 4e-3, 0.08 and 0.26
    of its norm. Compare with an example's gradient there.

    Args:
        dtype: theta's, float32 or float64; for float64 the precision does not matter.
        precision: as in `multiplied_in`.

    Raises:
        ValueError: an unknown precision.

    Example:
        >>> [round(tolerance(torch.float32, precision), 5) for precision in ("ieee", "tf32", "bfloat16")]
        [0.00035, 0.03125, 0.08839]
    """
    bits = _BITS[check_precision(precision)]
    spacing = torch.finfo(dtype).eps
    return math.sqrt(max(spacing, 2.0 ** (1 - bits)) if dtype == torch.float32 else spacing)
