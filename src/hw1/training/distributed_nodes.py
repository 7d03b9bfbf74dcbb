"""The other machines of a run (trainer.num_nodes): how they and its first process find each other, and whom they trust.

The first process opens a door, and says in a file where: addresses, a port, a secret. The file lies in a folder that is
the user's alone, on a file system that the machines share. Who reads it there knocks, and both show that they know the
secret before either reads what the other sends, which is pickled: HMAC, as `multiprocessing.connection` has it.
"""

from __future__ import annotations

import os
import platform
import secrets
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path

import platformdirs

from hw1 import preemption
from hw1.inside import is_private
from hw1.machine import seconds_said
from hw1.records import FORMAT, read_record, write_record
from hw1.settings import ConfigError
from hw1.settings.processes import NODES
from hw1.terminal import say
from hw1.training.made_with import versions
from hw1.words import count

ADDRESS = "HW1_NODE_ADDRESS"  # in the environment: of this machine, where others do not reach it by its own names
SECONDS = "HW1_NODE_SECONDS"  # the same: for which a run waits for its machines
_PATIENCE = 5.0  # seconds in which nothing is said of waiting
_ANSWER = 5.0  # seconds for one address
_ALIVE = (5, 5, 3)  # seconds of silence until a machine is asked whether it lives, between questions; questions
_OLD = 86400.0  # seconds after which nobody comes to an announcement any more
_STORES_TIME = platform.system() == "Linux"


@dataclass(frozen=True)
class Node:
    """Another machine, at the other end of a connection.

    Attributes:
        connection: to it.
        name: of that machine.
        here: the address of this one, as that one reaches it.
        there: that one's.
    """

    connection: Connection
    name: str
    here: str
    there: str

    def cut(self) -> None:
        """End every connection of this process with a machine that no longer answers: who waits for it hears of it."""
        for descriptor in os.listdir("/proc/self/fd") if _STORES_TIME else ():
            with suppress(OSError), socket.socket(fileno=os.dup(int(descriptor))) as one:
                if one.family == socket.AF_INET and one.getpeername()[0] == self.there:
                    one.shutdown(socket.SHUT_RDWR)


def meeting_place() -> Path:
    """The folder in which runs say where they are; made where it is not there.

    Raises:
        ConfigError: others can look into it.
    """
    given = os.environ.get(NODES)
    folder = Path(given) if given else platformdirs.user_state_path("hw1") / "nodes"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if not is_private(folder):
        raise ConfigError(
            f"{NODES}: got {folder}, into which others can look, expected a folder of your own: chmod 700 {folder}"
        )
    return folder


@contextmanager
def others_of(key: str, number: int) -> Iterator[list[Node]]:
    """The other machines of a run, when all have come; in the order in which they came.

    Args:
        key: of the run.
        number: of the machines.

    Raises:
        ConfigError: they have not come in time, or one has other versions than this one.
        Preempted: the job was asked to stop.
    """
    if not number:
        yield []
        return
    folder = meeting_place()
    for old in folder.glob("*.json"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > _OLD:
                old.unlink()
    with socket.create_server(("", 0)) as door:
        secret = secrets.token_bytes(32)
        told = {"format": FORMAT, "addresses": _addresses(), "port": door.getsockname()[1], "secret": secret.hex()}
        announced = folder / f"{key}-{secrets.token_hex(4)}.json"
        come = _Arrivals(door, secret, number)
        try:
            try:
                write_record(announced, told)
                nodes = come.wait(folder)
            finally:
                announced.unlink(missing_ok=True)
            yield nodes
        finally:
            come.close()


class _Arrivals:
    """The machines that have come: a thread opens to them."""

    def __init__(self, door: socket.socket, secret: bytes, number: int) -> None:
        self._door, self._secret, self._number = door, secret, number
        self._nodes: list[Node] = []
        self._refused, self._closed, self._lock = "", False, threading.Lock()
        door.settimeout(0.2)
        threading.Thread(target=self._open, daemon=True).start()

    def _open(self) -> None:
        while not self._closed:
            with suppress(TimeoutError, ConnectionError):
                try:
                    line, _ = self._door.accept()
                except TimeoutError:
                    raise
                except OSError:  # it is closed
                    return
                # One that says nothing keeps its own thread waiting, and nobody else.
                threading.Thread(target=self._greet, args=(line,), daemon=True).start()

    def _greet(self, line: socket.socket) -> None:
        with suppress(OSError, EOFError, AuthenticationError):
            here, there = line.getsockname()[0], line.getpeername()[0]
            connection = _lasting(line)
            deliver_challenge(connection, self._secret)
            answer_challenge(connection, self._secret)
            hello = connection.recv()
            with self._lock:
                if len(self._nodes) == self._number or self._closed:
                    connection.send(("go", "the run has the machines that it needs"))
                    connection.close()
                elif differs := _difference(hello["versions"]):
                    self._refused = f"{hello['name']} has {differs}"
                    connection.send(("go", self._refused))
                    connection.close()
                else:
                    self._nodes.append(Node(connection, hello["name"], here, there))

    def wait(self, folder: Path) -> list[Node]:
        """Until all have come."""
        begun, said, limit = time.monotonic(), False, seconds_said(SECONDS, 600, 1, 86400)
        while (missing := self._number - len(self._nodes)) and not self._refused:
            preemption.require()
            waited, machines = time.monotonic() - begun, count(missing, "more machine")
            if waited > limit:
                raise ConfigError(
                    f"trainer.num_nodes: got {self._number + 1}, but {machines} did not come within {limit:g} s; "
                    f"expected `hw1 node` at work there, by the same {folder}, or hydra/launcher=submitit_slurm"
                )
            if waited > _PATIENCE and not said:
                said = True
                say(f"waiting for {machines}: `hw1 node` there makes it one of this run's ({folder})")
            time.sleep(0.05)
        if self._refused:
            raise ConfigError(f"trainer.num_nodes: {self._refused}; expected the same versions on all machines")
        return list(self._nodes)

    def close(self) -> None:
        """Nobody comes any more; those that are there go."""
        with self._lock:
            self._closed = True
            for node in self._nodes:
                node.connection.close()


def knock(announced: Path) -> Node | None:
    """Come to a run: the connection to its first process; None where nobody opens who knows the secret."""
    try:
        told = read_record(announced)
        addresses, port, secret = [str(one) for one in told["addresses"]], int(told["port"]), str(told["secret"])
        key = bytes.fromhex(secret)
    except (OSError, ValueError, KeyError, TypeError):  # it is gone already, or none of ours
        return None
    for address in addresses:
        with suppress(OSError, EOFError, AuthenticationError):
            line = socket.create_connection((address, port), _ANSWER)
            here, there = line.getsockname()[0], line.getpeername()[0]
            connection = _lasting(line)
            answer_challenge(connection, key)
            deliver_challenge(connection, key)
            connection.send({"name": _name(), "versions": versions()})
            return Node(connection, address, here, there)
    return None


def interface_of(address: str) -> str:
    """The name of this machine's network interface that has an address; "" where that cannot be told."""
    if found := next((name for name, own in _interfaces() if own == address), ""):
        return found
    named = {name for _, name in socket.if_nameindex()} if hasattr(socket, "if_nameindex") else set()
    return min(named & {"lo", "lo0"}, default="") if address == "127.0.0.1" else ""


def _interfaces() -> list[tuple[str, str]]:
    """(name, IPv4 address) of this machine's interfaces that have one; nothing where the system is not asked so."""
    try:
        import fcntl
    except ImportError:  # Windows
        return []
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has none, or this system numbers its requests otherwise
                answer = fcntl.ioctl(line.fileno(), 0x8915, struct.pack("256s", name.encode()[:15]))  # SIOCGIFADDR
                found.append((name, socket.inet_ntoa(answer[20:24])))
    return found


def _addresses() -> Sequence[str]:
    """By which another machine may reach this one, the likeliest first; the loopback, for one on this machine, last."""
    if given := os.environ.get(ADDRESS):
        return [given]
    named = [os.environ.get("SLURMD_NODENAME", ""), socket.gethostname()]
    own = [address for _, address in _interfaces()]
    first = [one for one in own if not one.startswith("127.")]
    return list(dict.fromkeys([*first, *filter(None, named), "127.0.0.1"]))


def _name() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def _difference(theirs: dict[str, str]) -> str:
    """By which version that machine would train otherwise than this one; "" for none."""
    return next((f"{k} {theirs.get(k)}, this one {v}" for k, v in versions().items() if theirs.get(k) != v), "")


def _lasting(line: socket.socket) -> Connection:
    """A connection that ends within half a minute where the other machine is gone."""
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in zip(("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"), _ALIVE, strict=True):
        with suppress(AttributeError, OSError):  # by the system's own times, then
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    with suppress(AttributeError, OSError):
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * (_ALIVE[0] + _ALIVE[1] * _ALIVE[2]))
    return Connection(line.detach())
