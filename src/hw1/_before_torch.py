"""What must be set in a process before it loads torch, and is wrong for training on CPUs as it comes.

glibc's malloc maps and unmaps every large temporary; page faults are then up to half of a CPU training step. libgomp's
threads spin while they wait for each other; on cores that others use too, a step of a CNN took 785 ms instead of 65.
"""

import ctypes
import os
import platform
import sys

# mallopt parameters, from glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def keep_large_blocks() -> bool:
    """Let malloc reuse blocks below 1 GiB instead of returning them to the kernel. HW1_MALLOC=0 turns it off.

    Returns:
        Whether the settings were taken: True on Linux with glibc.
    """
    if os.environ.get("HW1_MALLOC") == "0" or sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(
        [mallopt(_M_MMAP_THRESHOLD, 2**30), mallopt(_M_TRIM_THRESHOLD, 2**31 - 1), mallopt(_M_TOP_PAD, 64 * 2**20)]
    )


def spin_briefly() -> None:
    """Let libgomp's threads spin 1,000 times before they sleep, unless the user has said how they wait."""
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = "1000"
