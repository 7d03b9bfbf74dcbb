"""The algebra of operators: products with @, sums, scales, damping, SciPy. A mixin; the algorithms do without it."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from hw1.curvature.operators import Operator


class Algebra:
    """What a symmetric operator with size, dtype, device and matvec can do besides.

    A user's own class gets it by inheriting, or from `as_operator(own)`.

    Example:
        >>> from hw1.curvature.operators import Dense
        >>> a, b = Dense(torch.diag(torch.tensor([1.0, 2.0]))), Dense(torch.ones(2, 2))
        >>> (a + 2 * b).damped(0.5) @ torch.tensor([1.0, 0.0])
        tensor([3.5000, 2.0000])
        >>> a.shape, a.T is a
        ((2, 2), True)
    """

    __array_ufunc__ = None  # a NumPy number on the left leaves the product to us

    @property
    def shape(self: Operator) -> tuple[int, int]:
        """(P, P)."""
        return (self.size, self.size)

    @property
    def T(self: Operator) -> Operator:
        """The operator itself: it is symmetric."""
        return self

    def adjoint(self: Operator) -> Operator:
        """The operator itself: it is symmetric."""
        return self

    def __matmul__(self: Operator, v: Tensor) -> Tensor:
        check_vector(self, v)
        return self.matvec(v)

    def __rmatmul__(self: Operator, v: Tensor) -> Tensor:
        """Row vectors: [P] -> [P], or [k, P] -> [k, P]."""
        if not isinstance(v, Tensor) or v.ndim != 2:
            check_vector(self, v)
            return self.matvec(v)
        check_vector(self, v.T)
        return self.matvec(v.T).T

    def __add__(self: Operator, other: Operator) -> Combination:
        return Combination.of((1.0, self), (1.0, other)) if _is_operator(other) else NotImplemented

    def __radd__(self: Operator, other: object) -> Operator:
        if isinstance(other, int) and other == 0:  # where sum() begins
            return self
        return Combination.of((1.0, other), (1.0, self)) if _is_operator(other) else NotImplemented  # type: ignore[arg-type]

    def __sub__(self: Operator, other: Operator) -> Combination:
        return Combination.of((1.0, self), (-1.0, other)) if _is_operator(other) else NotImplemented

    def __rsub__(self: Operator, other: Operator) -> Combination:
        return Combination.of((1.0, other), (-1.0, self)) if _is_operator(other) else NotImplemented

    def __neg__(self: Operator) -> Combination:
        return Combination.of((-1.0, self))

    def __mul__(self: Operator, scale: float | Tensor) -> Combination:
        return Combination.of((_number("scale", scale), self)) if _is_scalar(scale) else NotImplemented

    def __rmul__(self: Operator, scale: float | Tensor) -> Combination:
        return Combination.of((_number("scale", scale), self)) if _is_scalar(scale) else NotImplemented

    def __truediv__(self: Operator, scale: float | Tensor) -> Combination:
        return Combination.of((1 / _number("scale", scale), self)) if _is_scalar(scale) else NotImplemented

    def damped(self: Operator, damping: float) -> Combination:
        """A + damping I.

        Raises:
            ValueError: the damping is not finite.
        """
        return Combination.of((1.0, self), shift=_number("damping", damping))

    def to_scipy(self: Operator, dtype: Any = None) -> Any:
        """A `scipy.sparse.linalg.LinearOperator`, for `eigsh`, `cg` and others; the products are taken where A is.

        Args:
            dtype: of SciPy's vectors; the operator's own, unless said.

        Example:
            >>> from scipy.sparse.linalg import eigsh
            >>> from hw1.curvature.operators import Dense
            >>> op = Dense(torch.diag(torch.arange(1.0, 9.0).double()))
            >>> eigsh(op.to_scipy(), k=2, return_eigenvectors=False).round(6).tolist()
            [7.0, 8.0]
        """
        import numpy as np
        from scipy.sparse.linalg import LinearOperator

        own = np.dtype(str(self.dtype).removeprefix("torch.") if dtype is None else dtype)

        def product(v: Any) -> Any:
            columns = torch.as_tensor(np.ascontiguousarray(v), dtype=self.dtype, device=self.device)
            flat = columns.reshape(self.size) if columns.numel() == self.size else columns  # SciPy's [P, 1]
            return self.matvec(flat).cpu().numpy().astype(own).reshape(np.shape(v))

        shape = (self.size, self.size)
        return LinearOperator(shape, matvec=product, rmatvec=product, matmat=product, rmatmat=product, dtype=own)


class Combination(Algebra):
    """sum_i scale_i A_i + shift I: what sums, differences, scales and damping of operators are.

    Args:
        terms: (scale_i, A_i), at least one; of one size, dtype and device.
        shift: the multiple of the identity.

    Raises:
        ValueError: the operators do not fit together.
    """

    def __init__(self, terms: tuple[tuple[float, Operator], ...], shift: float = 0.0) -> None:
        self.terms, self.shift = terms, shift
        first = terms[0][1]
        for _, other in terms[1:]:
            if other.size != first.size:
                raise ValueError(
                    f"operators: got sizes {first.size} and {other.size}, expected one size: take them at one theta"
                )
            if (other.dtype, other.device) != (first.dtype, first.device):
                raise ValueError(
                    f"operators: got {first.dtype} on {first.device} and {other.dtype} on {other.device}, expected one "
                    "dtype and device: take both at one theta, e.g. theta.double()"
                )

    @classmethod
    def of(cls, *terms: tuple[float, Operator], shift: float = 0.0) -> Combination:
        """The sum of scaled operators, combinations among them taken apart."""
        flat: list[tuple[float, Operator]] = []
        for scale, op in terms:
            if isinstance(op, Combination):
                flat += [(scale * own, part) for own, part in op.terms]
                shift += scale * op.shift
            else:
                flat.append((scale, op))
        return cls(tuple(flat), shift)

    @property
    def size(self) -> int:
        """P."""
        return self.terms[0][1].size

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the vectors."""
        return self.terms[0][1].dtype

    @property
    def device(self) -> torch.device:
        """Device of the vectors."""
        return self.terms[0][1].device

    def matvec(self, v: Tensor) -> Tensor:
        """The product: [P] -> [P], or [P, k] -> [P, k]."""
        total = self.shift * v
        for scale, op in self.terms:
            total = total + scale * op.matvec(v)
        return total

    def block(self, *names: str) -> Combination:
        """The diagonal block of some parameters (names or prefixes), where all operators have blocks.

        Raises:
            ValueError: one of them has none.
        """
        for _, op in self.terms:
            if not hasattr(op, "block"):
                raise ValueError(
                    f"block: got {type(op).__name__}, which has none, expected operators with block(name): give it one"
                )
        return Combination(tuple((scale, op.block(*names)) for scale, op in self.terms), self.shift)  # type: ignore[attr-defined]


def check_vector(op: Operator, v: Tensor) -> None:
    """Refuse what is no vector [P] or block [P, k] of the operator's dtype, on its device.

    Raises:
        ValueError: another shape, dtype or device.
        TypeError: no tensor.
    """
    if not isinstance(v, Tensor):
        raise TypeError(
            f"v: got {type(v).__name__}, expected a tensor [{op.size}] or [{op.size}, k]: a product of operators is "
            "not symmetric, take one after the other; for NumPy there is to_scipy()"
        )
    if v.ndim not in (1, 2) or len(v) != op.size:
        raise ValueError(
            f"v: got shape {list(v.shape)}, expected [{op.size}] or [{op.size}, k]: flatten named tensors with "
            "risk.space.flatten(...)"
        )
    if v.dtype != op.dtype or v.device != op.device:
        raise ValueError(
            f"v: got {v.dtype} on {v.device}, expected the operator's {op.dtype} on {op.device}: use "
            "v.to(op.device, op.dtype)"
        )


def _is_operator(other: object) -> bool:
    return all(hasattr(other, name) for name in ("size", "dtype", "device", "matvec"))


def _is_scalar(value: object) -> bool:
    return isinstance(value, Real) or (isinstance(value, Tensor) and value.ndim == 0)


def _number(name: str, value: float | Tensor) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name}: got {number}, expected a finite number: was it divided by 0?")
    return number
