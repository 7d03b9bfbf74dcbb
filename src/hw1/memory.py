"""Whether there is memory for what a file claims, asked before it is taken. No torch."""

from __future__ import annotations

import math

from hw1.bounds import DATA_BYTES
from hw1.machine import free_memory


def problem_of(size: int) -> str:
    """What is wrong with data of a size; "" if nothing is. By default, as much may be read as is free.

    Args:
        size: bytes in memory.
    """
    free = free_memory()
    return DATA_BYTES.problem(size, None if math.isinf(free) else int(free))
