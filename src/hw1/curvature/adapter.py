"""Other libraries' symmetric operators for the algorithms of this room, and a user's own with the whole algebra."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hw1.curvature.algebra import Algebra, check_vector
from hw1.curvature.operators import Dense, Operator


class Wrapped(Algebra):
    """An operator by its product alone; `as_operator` makes them.

    Args:
        product: [P] -> [P], or [P, k] -> [P, k].
        size: P.
        dtype: of the vectors.
        device: of the vectors.
    """

    def __init__(self, product: Any, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self._product, self._size, self._dtype, self._device = product, size, dtype, device

    @property
    def size(self) -> int:
        """P."""
        return self._size

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the vectors."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """Device of the vectors."""
        return self._device

    def matvec(self, v: Tensor) -> Tensor:
        """The product: [P] -> [P], or [P, k] -> [P, k]."""
        check_vector(self, v)
        product: Tensor = self._product(v)
        return product.detach()


def as_operator(op: Any, *, check: bool = True) -> Operator:
    """A symmetric matrix or linear operator of another kind as an operator of this room.

    Taken are what has size, dtype, device and matvec (it gets the algebra), whatever has shape, dtype, device and @
    (curvlinops' `PyTorchLinearOperator`), tensors, and what SciPy's `aslinearoperator` takes: its LinearOperator, NumPy
    arrays and sparse matrices, whose products are taken in NumPy, on the CPU.

    Args:
        op: the operator, [P, P].
        check: whether two products say that it is symmetric, as the algorithms assume; none is spent without.

    Raises:
        ValueError: it is not square, or not symmetric.
        TypeError: it is nothing of the kind.

    Example:
        >>> import numpy as np
        >>> as_operator(np.diag([1.0, 2.0])) @ torch.tensor([1.0, 1.0]).double()
        tensor([1., 2.], dtype=torch.float64)
    """
    if isinstance(op, Tensor):
        return Dense(op.detach())
    if isinstance(op, Algebra):
        return op  # type: ignore[return-value]
    if all(hasattr(op, name) for name in ("size", "dtype", "device", "matvec")):
        wrapped = Wrapped(op.matvec, op.size, op.dtype, op.device)
    elif hasattr(op, "shape") and isinstance(getattr(op, "dtype", None), torch.dtype) and hasattr(op, "device"):
        wrapped = Wrapped(op.__matmul__, _square(op.shape), op.dtype, op.device)
    else:
        wrapped = _of_scipy(op)
    if check:
        _require_symmetric(wrapped)
    return wrapped


def _of_scipy(op: Any) -> Wrapped:
    import numpy as np
    from scipy.sparse.linalg import aslinearoperator

    try:
        linear = aslinearoperator(op)
    except TypeError as error:
        raise TypeError(
            f"op: got {type(op).__name__}, expected an operator: size, dtype, device and matvec, or shape, dtype, "
            "device and @, or what SciPy's aslinearoperator takes"
        ) from error
    if linear.dtype is not None and np.dtype(linear.dtype).kind == "c":
        raise ValueError(f"op: got {linear.dtype}, expected real numbers: take a real symmetric operator")
    single = linear.dtype == np.dtype("float32")
    dtype = torch.float32 if single else torch.float64

    def product(v: Tensor) -> Tensor:
        return torch.as_tensor(np.asarray(linear @ v.detach().numpy()), dtype=dtype)

    return Wrapped(product, _square(linear.shape), dtype, torch.device("cpu"))


def _square(shape: Any) -> int:
    rows, columns = shape
    if rows != columns:
        raise ValueError(f"op: got shape [{rows}, {columns}], expected [P, P]: for J, take J^T J")
    return int(rows)


def _require_symmetric(op: Wrapped) -> None:
    """u^T A v = v^T A u for two random vectors, but for rounding."""
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, op.size, generator=generator, dtype=torch.float64).to(op.device, op.dtype)
    forth, back = op.matvec(v).double(), op.matvec(u).double()
    asymmetry = (u.double() @ forth - v.double() @ back).abs().item()
    scale = (u.norm() * forth.norm() + v.norm() * back.norm()).item() / op.size**0.5
    if not asymmetry <= torch.finfo(op.dtype).eps ** 0.5 * scale:
        raise ValueError(
            f"op: got u^T A v and v^T A u that differ by {asymmetry:.1e} for vectors u, v with a product of norm "
            f"{scale:.1e}, expected a symmetric operator: take (A + A^T) / 2"
        )
