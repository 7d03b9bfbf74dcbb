"""Functions of one variable to fit, and the examples drawn from them.

`sinc(u)` stands for sin(u) / u, 1 at u = 0; torch.sinc(x) is sinc(pi x).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from hw1.data.protocol import TrainTest
from hw1.kinds import Kind
from hw1.memory import problem_of

if TYPE_CHECKING:
    from torch import Tensor


def sinc_5pi(x: Tensor) -> Tensor:
    """f(x) = sinc(5 pi x)."""
    return (5 * x).sinc()


def sgn_sin_5pi(x: Tensor) -> Tensor:
    """f(x) = sgn(sin 5 pi x), a square wave of period 0.4. At its jumps, the rounding of sin decides the sign."""
    return (5 * math.pi * x).sin().sign()


def cos_1_5(x: Tensor) -> Tensor:
    """f(x) = cos 1.5 x."""
    return (1.5 * x).cos()


def sin_2(x: Tensor) -> Tensor:
    """f(x) = sin 2 x."""
    return (2 * x).sin()


def sinc_plus_sin(x: Tensor) -> Tensor:
    """f(x) = sinc(pi x) + sin 0.5 x."""
    return x.sinc() + (0.5 * x).sin()


def sinc_plus_square(x: Tensor) -> Tensor:
    """f(x) = sinc(pi x) + 0.7 x^2."""
    return x.sinc() + 0.7 * x.square()


def sin_2pi_plus_cos_3pi(x: Tensor) -> Tensor:
    """f(x) = sin 2 pi x + 0.5 cos 3 pi x."""
    return (2 * math.pi * x).sin() + 0.5 * (3 * math.pi * x).cos()


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    function.__name__: function
    for function in (sinc_5pi, sgn_sin_5pi, cos_1_5, sin_2, sinc_plus_sin, sinc_plus_square, sin_2pi_plus_cos_3pi)
}


_BYTES = 32  # of a point in memory while it is made


class Function:
    """Examples (x, f(x) + noise) of one of `FUNCTIONS`.

    Training inputs are `points` evenly spaced values from `domain[0]` to `domain[1]`, both included. Test inputs are
    the midpoints of `test_points` equal cells of the domain, without noise; with an even `points` no midpoint is a
    training input.

    Args:
        function: a key of `FUNCTIONS`.
        domain: (lowest, highest) x.
        points: number of training examples.
        noise: standard deviation of the Gaussian noise on the training targets, in units of y.
        noise_seed: seed of that noise.
        test_points: number of test examples.

    Raises:
        ValueError: a value is out of range; the message begins with its name.
    """

    kind: ClassVar[Kind] = "values"
    in_shape = (1,)
    out_features = 1
    source = "function"

    def __init__(
        self, function: str, domain: Sequence[float], points: int, noise: float, noise_seed: int, test_points: int
    ) -> None:
        if function not in FUNCTIONS:
            raise ValueError(f"function: got {function!r}, expected one of {', '.join(FUNCTIONS)}")
        if len(domain) != 2 or not -math.inf < domain[0] < domain[1] < math.inf:
            raise ValueError(f"domain: got {list(domain)}, expected [lowest, highest] with lowest < highest")
        for name, value in (("points", points), ("test_points", test_points)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: got {value!r}, expected a positive integer")
            if problem := problem_of(_BYTES * value):
                raise ValueError(f"{name}: {problem}")
        if not isinstance(noise, int | float) or not 0 <= noise < math.inf:
            raise ValueError(f"noise: got {noise!r}, expected a standard deviation of at least 0")
        self.name = function
        self.domain = (float(domain[0]), float(domain[1]))
        self.points, self.test_points = points, test_points
        self.noise, self.noise_seed = float(noise), noise_seed

    def identity(self) -> str:
        """SHA-256 of what defines the examples: nothing is read."""
        noise = (self.noise, self.noise_seed) if self.noise else None
        definition = repr((self.name, self.domain, self.points, self.test_points, noise))
        return hashlib.sha256(definition.encode()).hexdigest()

    def prepare(self) -> None:
        """Nothing to download."""

    def files(self) -> tuple[str, ...]:
        """None: examples are computed."""
        return ()

    def load(self) -> TrainTest:
        """The examples: x and y [N, 1] float32, computed in float64 (float32 is off by 5e-6 in sin 5 pi x at x = 5)."""
        import torch

        f = FUNCTIONS[self.name]
        low, high = self.domain
        train_x = torch.linspace(low, high, self.points, dtype=torch.float64)[:, None]
        cells = torch.arange(self.test_points, dtype=torch.float64)[:, None]
        test_x = low + (cells + 0.5) * ((high - low) / self.test_points)
        generator = torch.Generator().manual_seed(self.noise_seed)
        noise = self.noise * torch.randn(train_x.shape, generator=generator, dtype=torch.float64)
        return TrainTest(train_x.float(), (f(train_x) + noise).float(), test_x.float(), f(test_x).float())
