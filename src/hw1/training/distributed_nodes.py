"""The other machines of a run (trainer.num_nodes): how they and its first process find each other, and whom they trust.

The first process opens a door, and says in a file where: addresses, a port, a secret. The file lies in a folder that is
the user's alone, on a file system that the machines share, and carries the user's signature. Who reads it there knocks,
and both show that they know the secret before either reads what the other sends, which is pickled: HMAC, as
`multiprocessing.connection` has it. What torch.distributed opens besides makes sure of nobody.
"""

from __future__ import annotations

import os
import secrets
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path

from hw1 import preemption
from hw1.machine import seconds_said
from hw1.records import FORMAT, is_own, make_key, read_record, write_record
from hw1.settings import ConfigError
from hw1.terminal import say
from hw1.training.made_with import versions_here
from hw1.training.network import addresses_here, meeting_place, own_addresses
from hw1.words import count

SECONDS = "HW1_NODE_SECONDS"  # in the environment: for which a run waits for its machines
_PATIENCE = 5.0  # seconds in which nothing is said of waiting
_ANSWER = 5  # seconds for one address, and for each word until both know the secret
_GREETED = 16  # connections at a time of which nobody knows yet whose they are
_ALIVE = (5, 5, 3)  # seconds of silence until a machine is asked whether it lives, between questions; questions
_OLD = 86400.0  # seconds after which nobody comes to an announcement any more
_NOT_THEM = (OSError, EOFError, AuthenticationError, AssertionError)  # the last is what Python 3.11 says of bad words


@dataclass(frozen=True)
class Node:
    """Another machine, at the other end of a connection.

    Attributes:
        connection: to it.
        name: of that machine.
        here: the address of this one, as that one reaches it.
        there: those of that one.
    """

    connection: Connection
    name: str
    here: str
    there: frozenset[str]

    def cut(self) -> None:
        """End every connection of this process with a machine that no longer answers: who waits for it hears of it."""
        for descriptor in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
                    with socket.socket(fileno=os.dup(int(descriptor))) as one:
                        if one.family in (socket.AF_INET, socket.AF_INET6) and _plain(one.getpeername()) in self.there:
                            one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection: the other hears of it at once, and so does a thread of this process that listens."""
        with suppress(OSError), socket.socket(fileno=os.dup(self.connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)


def check_nodes() -> None:
    """Refuse several machines where they cannot train, or what the environment says of them.

    Raises:
        ConfigError: one line.
    """
    if sys.platform != "linux":
        raise ConfigError(
            f"trainer.num_nodes: got several machines on {sys.platform}, expected Linux on all of them, where a lost "
            "machine is noticed; trainer.num_nodes=1"
        )
    _patience()
    addresses_here()


def _patience() -> float:
    try:
        return seconds_said(SECONDS, 600, 1, 86400)
    except ValueError as error:
        raise ConfigError(str(error)) from error


@contextmanager
def others_of(key: str, number: int) -> Iterator[list[Node]]:
    """The other machines of a run, when all have come; in the order in which they came.

    Args:
        key: of the run.
        number: of the machines.

    Raises:
        ConfigError: they have not come in time.
        Preempted: the job was asked to stop.
    """
    if not number:
        yield []
        return
    folder = meeting_place()
    if said := make_key():
        raise ConfigError(f"trainer.num_nodes: got {number + 1}, but machines cannot tell whose run it is: {said}")
    for old in folder.glob("*.json"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > _OLD:
                old.unlink()
    secret = secrets.token_bytes(32)
    announced = folder / f"{key}-{secrets.token_hex(4)}.json"
    nodes: list[Node] = []
    try:
        with socket.create_server(("", 0)) as door:
            where = {"addresses": addresses_here(), "port": door.getsockname()[1], "secret": secret.hex()}
            come = _Arrivals(door, secret, number, nodes)
            try:
                write_record(announced, {"format": FORMAT, **where})
                come.wait(folder)
            finally:
                announced.unlink(missing_ok=True)
                come.close()
        yield nodes
    finally:
        for node in nodes:
            node.close()


class _Arrivals:
    """The machines that come: a thread opens to them."""

    def __init__(self, door: socket.socket, secret: bytes, number: int, nodes: list[Node]) -> None:
        self._door, self._secret, self._number, self._nodes = door, secret, number, nodes
        self._refused, self._closed, self._lock = "", False, threading.Lock()
        self._greeted = threading.Semaphore(_GREETED)
        door.settimeout(0.2)
        self._thread = threading.Thread(target=self._open, daemon=True)
        self._thread.start()

    def _open(self) -> None:
        while not self._closed:
            if not self._greeted.acquire(timeout=0.2):
                continue
            try:
                line, _ = self._door.accept()
                threading.Thread(target=self._greet, args=(line,), daemon=True).start()
            except TimeoutError:
                self._greeted.release()
            except (OSError, RuntimeError):  # no descriptors or threads are left, say: others may end theirs
                self._greeted.release()
                time.sleep(0.2)

    def _greet(self, line: socket.socket) -> None:
        try:
            with suppress(*_NOT_THEM):
                here, peer = _plain(line.getsockname()), _plain(line.getpeername())
                connection = _known(line, self._secret, deliver_challenge, answer_challenge)
                hello = connection.recv()
                own = (one for one in hello["addresses"] if not one.startswith("127."))  # which every machine has
                node = Node(connection, hello["name"], here, frozenset([peer, *own]))
                with self._lock:
                    if len(self._nodes) == self._number or self._closed:
                        connection.send(("go", "it has the machines that it needs"))
                    elif differs := _difference(hello["versions"]):
                        self._refused = f"{node.name} has {differs}"
                        connection.send(("go", f"this machine has {differs}"))
                    else:
                        self._nodes.append(node)
        finally:
            self._greeted.release()

    def wait(self, folder: Path) -> None:
        """Until all have come."""
        begun, said, limit, refused = time.monotonic(), False, _patience(), ""
        while missing := self._number - self._there():
            preemption.require()
            waited, machines = time.monotonic() - begun, count(missing, "more machine")
            if waited > limit:
                raise ConfigError(
                    f"trainer.num_nodes: got {self._number + 1}, but {machines} did not come within {limit:g} s"
                    f"{f' ({self._refused})' if self._refused else ''}; expected `hw1 node` at work there, by the same "
                    f"{folder}, or hydra/launcher=submitit_slurm"
                )
            if waited > _PATIENCE and not said:
                said = True
                say(f"waiting for {machines}: `hw1 node` there makes it one of this run's ({folder})")
            if self._refused != refused:
                refused = self._refused
                say(f"sent away: {refused}; expected the same versions on all machines, and `hw1 node` begun anew")
            time.sleep(0.05)

    def _there(self) -> int:
        """How many have come, and have not gone again: until they are told something they say nothing."""
        with self._lock:
            self._nodes[:] = [node for node in self._nodes if not node.connection.poll()]
            return len(self._nodes)

    def close(self) -> None:
        """Nobody comes any more."""
        with self._lock:
            self._closed = True
        self._thread.join()


def knock(announced: Path) -> Node | None:
    """Come to a run: the connection to its first process; None where nobody opens who knows the secret."""
    if not is_own(announced):  # it is gone already, or somebody else's
        return None
    try:
        told = read_record(announced)
        addresses, port, key = [str(one) for one in told["addresses"]], int(told["port"]), bytes.fromhex(told["secret"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    for address in addresses:
        with suppress(*_NOT_THEM):
            line = socket.create_connection((address, port), _ANSWER)
            here = _plain(line.getsockname())
            connection = _known(line, key, answer_challenge, deliver_challenge)
            connection.send({"name": _name(), "addresses": own_addresses(), "versions": versions_here()})
            return Node(connection, address, here, frozenset(addresses))
    return None


def _known(line: socket.socket, secret: bytes, *steps: Callable[[Connection, bytes], None]) -> Connection:
    """A connection whose ends know each other, which ends within half a minute where the other machine is gone.

    Args:
        line: to the other.
        secret: that both know.
        steps: by which each shows that, in this end's order.

    Raises:
        OSError: the other does not answer in time.
        AuthenticationError, AssertionError: it does not know the secret.
    """
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        line.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _ANSWER, 0))
    line.settimeout(None)
    connection = Connection(line.detach())
    for step in steps:
        step(connection, secret)
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.setblocking(True)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            line.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 0, 0))
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in zip(("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"), _ALIVE, strict=True):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        silence = _ALIVE[0] + _ALIVE[1] * _ALIVE[2]
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * silence)
    return connection


def _plain(end: tuple[str, int] | tuple[str, int, int, int]) -> str:
    return end[0].removeprefix("::ffff:")


def _name() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def _difference(theirs: Mapping[str, str]) -> str:
    """By which version that machine would train otherwise than this one; "" for none."""
    differ = (name for name, own in versions_here().items() if theirs.get(name) != own)
    return next((f"{name} {theirs.get(name)}, the first {versions_here()[name]}" for name in differ), "")
