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
from hw1.training.distributed_nodes import Node, knock
from hw1.training.made_with import versions_here
from hw1.training.network import interface_of, require_private
from hw1.workers import portable, spread

_POLL = 0.1
_ENDING = 20.0  # seconds in which the processes of runs end
_PATIENCE = 15.0  # seconds in which somebody opens, or nobody will
_SEEN = 90.0  # seconds until what one machine has written is seen by another: network file systems keep what they know


def attend(folder: Path, ended: Callable[[], bool], say: Callable[[str], None]) -> None:
    """Be another machine of every run that is announced in a folder.

    Args:
        folder: `network.meeting_place`.
        ended: asked again and again; when it says so, this ends when the runs have that it is at. An exception here,
            Ctrl-C say, ends its share of them.
        say: gets a line where it begins with a run and where that ends.

    Raises:
        ConfigError: the folder is the user's alone no longer.
    """
    versions_here()  # of what this process has imported, whatever becomes of the files
    at: dict[str, threading.Thread] = {}
    nodes: list[Node] = []
    try:
        while not ended():
            with suppress(OSError):  # of a network file system, for a moment
                if folder.is_dir():  # or whose it was has put it away
                    require_private(folder)
                for announced in sorted(folder.glob("*.json")):
                    if announced.name not in at:
                        at[announced.name] = threading.Thread(target=_serve, args=(announced, nodes, say), daemon=True)
                        at[announced.name].start()
            time.sleep(_POLL)
    except BaseException:
        for node in list(nodes):
            node.close()
        raise
    finally:
        last = time.monotonic() + _ENDING
        for thread in at.values():
            thread.join(max(0.0, last - time.monotonic()))


def _serve(announced: Path, nodes: list[Node], say: Callable[[str], None]) -> None:
    """Be another machine of one run, if it wants one."""
    last, node = time.monotonic() + _PATIENCE, knock(announced)
    while node is None:
        if time.monotonic() > last or not announced.exists():
            return
        time.sleep(1.0)
        node = knock(announced)
    nodes.append(node)
    try:
        with node.connection:
            message = node.connection.recv()
            if message[0] == "work":
                _, shared, ranks = message
                _work(node, shared, ranks, say)
            else:
                say(f"sent away from the run at {node.name}: {message[1]}")
    except (EOFError, OSError):
        pass  # it has ended
    except Exception as error:  # what it sent cannot be read here, say
        say(f"the run at {node.name}: {type(error).__name__}: {error}")
    finally:
        nodes.remove(node)


def _work(node: Node, shared: Shared, ranks: range, say: Callable[[str], None]) -> None:
    name, tell = shared.folder.name, node.connection.send
    say(f"{name}: processes {ranks[0]} to {ranks[-1]} (from 0) of the run at {node.name}")
    try:
        _require_seen(shared, node)
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


def _require_seen(shared: Shared, node: Node) -> None:
    """Wait until this machine sees what the first one goes on from, or the run has ended.

    Raises:
        ConfigError: it does not see the run's folder, or another checkpoint.
    """
    last, checkpoint = time.monotonic() + _SEEN, shared.folder / "checkpoints" / LAST
    while not node.connection.poll():
        with suppress(OSError):
            if not shared.checkpoint and shared.folder.is_dir():
                return
            if shared.checkpoint and file_digest(checkpoint) == shared.checkpoint:
                return
        if time.monotonic() > last:
            what = f"another {checkpoint}" if checkpoint.exists() else f"no {shared.folder}"
            raise ConfigError(f"output: got a machine that sees {what}, expected a file system that all machines share")
        time.sleep(0.2)
