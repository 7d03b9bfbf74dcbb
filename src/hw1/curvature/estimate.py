"""A number that was estimated from samples, with its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """An unbiased estimate.

    Attributes:
        value: the estimate.
        standard_error: standard deviation of `value` over repetitions, itself estimated from the samples.
    """

    value: float
    standard_error: float

    @classmethod
    def of(cls, samples: Tensor) -> Estimate:
        """Mean of independent samples [n], n >= 2, and its standard error s / sqrt(n).

        Example:
            >>> import torch
            >>> Estimate.of(torch.tensor([1.0, 3.0]))
            Estimate(value=2.0, standard_error=1.0)
        """
        samples = samples.double()
        return cls(samples.mean().item(), samples.std().item() / math.sqrt(len(samples)))


def check_probes(probes: int, least: int = 2) -> None:
    """Refuse too few probes for a standard error.

    Raises:
        ValueError: fewer than `least`.
    """
    if probes < least:
        raise ValueError(f"probes: got {probes}, expected at least {least}: the standard error is measured over them")
