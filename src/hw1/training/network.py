"""How machines of one user find each other: the folder where they meet, and by what others reach this one. No torch."""

from __future__ import annotations

import os
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

import platformdirs

from hw1.inside import is_private
from hw1.settings import ConfigError
from hw1.settings.processes import ADDRESS, NODES


def meeting_place() -> Path:
    """The folder in which runs say where they are; made where it is not there.

    Raises:
        ConfigError: others can look into it, or put another in its place.
    """
    given = os.environ.get(NODES)
    folder = Path(given).absolute() if given else platformdirs.user_state_path("hw1") / "nodes"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    require_private(folder)
    return folder


def require_private(folder: Path) -> None:
    """Refuse a folder to meet in that is not the user's alone.

    Raises:
        ConfigError: others can look into it, or put another in its place.
    """
    if not is_private(folder):
        raise ConfigError(
            f"{NODES}: got {folder}, into which others can look, expected a folder of your own: chmod 700 {folder}"
        )
    mode = folder.parent.stat().st_mode
    if mode & 0o022 and not mode & 0o1000:
        raise ConfigError(
            f"{NODES}: got {folder}, in whose place others can put another, expected a folder of your own: "
            f"chmod go-w {folder.parent}"
        )


def interface_of(address: str) -> str:
    """The name of this machine's network interface that has an address; "" where that cannot be told."""
    if found := next((name for name, own in _interfaces() if own == address), ""):
        return found
    named = {name for _, name in socket.if_nameindex()} if hasattr(socket, "if_nameindex") else set()
    return min(named & {"lo", "lo0"}, default="") if address == "127.0.0.1" else ""


def _interfaces() -> list[tuple[str, str]]:
    """(name, IPv4 address) of this machine's interfaces that have one; nothing where the system is not asked so."""
    if sys.platform != "linux":
        return []
    import fcntl

    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has none
                told = fcntl.ioctl(line.fileno(), 0x8915, struct.pack("256s", name.encode()[:15]))  # SIOCGIFADDR
                found.append((name, socket.inet_ntoa(told[20:24])))
    return found


def own_addresses() -> list[str]:
    """The IPv4 addresses of this machine's interfaces."""
    return [address for _, address in _interfaces()]


def addresses_here() -> list[str]:
    """By which another machine may reach this one, the likeliest first; the loopback, for one on this machine, last.

    Raises:
        ConfigError: the environment names an address that is not this machine's.
    """
    own = own_addresses()
    if given := os.environ.get(ADDRESS):
        if given not in own:
            raise ConfigError(f"{ADDRESS}: got {given!r}, expected one of this machine's addresses: {', '.join(own)}")
        return [given]
    named = [os.environ.get("SLURMD_NODENAME", ""), socket.gethostname()]
    first = [one for one in own if not one.startswith("127.")]
    return list(dict.fromkeys([*first, *filter(None, named), "127.0.0.1"]))
