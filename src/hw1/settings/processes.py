"""How many processes train a run. No torch."""

from __future__ import annotations

import os

from hw1.settings.run_settings import RunSettings

NODES = "HW1_NODES"  # in the environment: the folder where the machines of a run find its first process
ADDRESS = "HW1_NODE_ADDRESS"  # the same: which of a machine's own addresses the others reach
DDP = "ddp"  # trainer.strategy of a run that several processes train


def strategy_of(settings: RunSettings) -> str:
    """trainer.strategy where it is a name: "auto" unless said; "" where it is a node."""
    named = settings.trainer.get("strategy") or "auto"
    return named if isinstance(named, str) else ""


def is_shared(settings: RunSettings) -> bool:
    """Whether processes share out the batches of the run (trainer=ddp)."""
    return strategy_of(settings) == DDP


def processes_here(settings: RunSettings) -> int:
    """Processes that train on each machine: with trainer=ddp one a device, else one."""
    devices = settings.trainer.get("devices", 1)
    number = len(devices) if isinstance(devices, list | tuple) else devices
    return number if is_shared(settings) and isinstance(number, int) else 1


def nodes(settings: RunSettings) -> int:
    """Machines that train: with trainer=ddp as many as trainer.num_nodes says, else one."""
    number = settings.trainer.get("num_nodes", 1)
    return number if is_shared(settings) and type(number) is int else 1


def processes(settings: RunSettings) -> int:
    """Processes that train, on all machines."""
    return processes_here(settings) * nodes(settings)


def environment_of_all() -> dict[str, str]:
    """The variables of hw1's own that hold on each machine that works for a command."""
    own = (NODES, ADDRESS)  # of one machine
    return {name: value for name, value in os.environ.items() if name.startswith("HW1_") and name not in own}
