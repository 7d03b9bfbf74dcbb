"""This machine as another one of runs that train on several (trainer.num_nodes): `hw1 node`, and the jobs of a cluster.

It comes to every run that is announced (`hw1.training.distributed_nodes`), starts its share of the run's processes, and
ends them when the run ends, has lost its first process, or one of them fails.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hw1.files import file_digest
from hw1.settings import ConfigError
from hw1.training.checkpoint import LAST
from hw1.training.distributed_meeting import INTERFACE, Shared, share_of
from hw1.training.distributed_nodes import Node, interface_of, knock
from hw1.workers import portable, spread

_POLL = 0.1
_PATIENCE = 15.0  # seconds in which somebody opens, or nobody will
_SEEN = 90.0  # seconds until what one machine has written is seen by another: network file systems keep what they know


def attend(folder: Path, ended: Callable[[], bool], say: Callable[[str], None]) -> None:
    """Be another machine of every run that is announced in a folder.

    Args:
        folder: `distributed_nodes.meeting_place`.
        ended: asked again and again; when it says so, this ends when the runs have that it is at.
        say: gets a line where it begins with a run and where that ends.
    """
    at: dict[str, threading.Thread] = {}
    while not ended():
        for announced in sorted(folder.glob("*.json")):
            if announced.name not in at:
                at[announced.name] = threading.Thread(target=_serve, args=(announced, say), daemon=True)
                at[announced.name].start()
        time.sleep(_POLL)
    for thread in at.values():
        thread.join()


def _serve(announced: Path, say: Callable[[str], None]) -> None:
    """Be another machine of one run, if it wants one."""
    last, node = time.monotonic() + _PATIENCE, knock(announced)
    while node is None:
        if time.monotonic() > last or not announced.exists():
            return
        time.sleep(1.0)
        node = knock(announced)
    with suppress(EOFError, OSError), node.connection:  # it has ended
        message = node.connection.recv()
        if message[0] == "work":
            _, shared, ranks = message
            _work(node, shared, ranks, say)


def _work(node: Node, shared: Shared, ranks: range, say: Callable[[str], None]) -> None:
    name, tell = shared.folder.name, node.connection.send
    say(f"{name}: processes {ranks[0]} to {ranks[-1]} (from 0) of the run at {node.name}")
    try:
        _require_seen(shared)
        talks = {INTERFACE: interface} if (interface := interface_of(node.here)) and INTERFACE not in os.environ else {}
        done = spread(
            functools.partial(share_of, shared),
            *(ranks, len(ranks)),
            environments=[{**shared.environment, **talks}],
            line=lambda *line: tell(("line", *line)),
            until=node.connection,  # whatever it says now: it has ended
            saving=0.0,
        )
        for number, result in done:
            if isinstance(result, Exception):
                tell(("failed", ranks[number], result))
                break
        done.close()
    except Exception as error:  # it is the run's
        tell(("failed", ranks[0], portable(error)))
    finally:
        say(f"{name}: ended")
        tell(("ended",))


def _require_seen(shared: Shared) -> None:
    """Wait until this machine sees what the first one goes on from.

    Raises:
        ConfigError: it does not see the run's folder, or another checkpoint.
    """
    last, checkpoint = time.monotonic() + _SEEN, shared.folder / "checkpoints" / LAST
    while True:
        with suppress(OSError):
            if not shared.checkpoint and shared.folder.is_dir():
                return
            if shared.checkpoint and file_digest(checkpoint) == shared.checkpoint:
                return
        if time.monotonic() > last:
            what = f"another {checkpoint}" if checkpoint.exists() else f"no {shared.folder}"
            raise ConfigError(f"output: got a machine that sees {what}, expected a file system that all machines share")
        time.sleep(0.2)
