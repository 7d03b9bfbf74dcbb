"""Records: JSON files that check themselves, and that carry the signature of the user whose command wrote them.

A record holds the SHA-256 of its own content, so that damage shows when it is read. The signature is an HMAC of that
checksum with a key in the user's configuration folder: it tells a user's own results from a stranger's, and nothing
else depends on it. No torch.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw1.files import write_json
from hw1.record_shapes import misshapen
from hw1.stored_json import from_json, read_json

FORMAT = 2  # of result.json and sweep.json; those of format 1 have no checksum

_ADDED = ("checksum", "signature")


class DamagedError(ValueError):
    """A file that is not what was written. The message names it and the remedy."""


def write_record(file: Path, record: Mapping[str, Any]) -> None:
    """Write a record of this user's, atomically: with its checksum, and signed if there is a key.

    Args:
        file: its name is signed with it.
        record: anything that JSON holds; a `checksum` and a `signature` of an earlier reading are replaced.
    """
    _write(file, record, _key())


def rewrite_record(file: Path, record: Mapping[str, Any]) -> None:
    """Write a record anew; signed only if the one that stands there carries a valid signature."""
    _write(file, record, _key() if is_own(file) else None)


def read_record(file: Path) -> dict[str, Any]:
    """A record's content, without checksum and signature.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it is no JSON object, its checksum is not that of its content, or something else stands where
            readers expect a number, text, a list or a mapping.
    """
    return read_sealed(file)[0]


@dataclass(frozen=True)
class Seal:
    """What a whole record says of itself.

    Attributes:
        file: it.
        checksum: of its content; "None" in one of format 1.
        signature: as it stands there, whoever wrote it; "None" without one.
    """

    file: Path
    checksum: str
    signature: str

    def is_own(self) -> bool:
        """Whether the signature is by this user's key."""
        key = _key()
        return key is not None and hmac.compare_digest(self.signature, _signature(self.file, self.checksum, key))


def read_sealed(file: Path) -> tuple[dict[str, Any], Seal]:
    """As `read_record`, and what tells whose it is: of many records, each is read once."""
    record = _read(file)
    content = _content(file, record)
    if problem := misshapen(file.name, file.parent.name, content):
        raise DamagedError(f"{file}: {problem}; delete it and run the command again")
    return content, _seal(file, record)


def is_own(file: Path) -> bool:
    """Whether a record is whole and carries a valid signature by this user's key."""
    if _key() is None:
        return False
    try:
        record = _read(file)
        _content(file, record)
    except (OSError, DamagedError):
        return False
    return _seal(file, record).is_own()


def make_key() -> str:
    """Make the user's key if there is none; returns why it cannot be made, "" if it can.

    Two processes that make it at once get the same one.
    """
    file = key_file()
    if file.exists():
        return "" if _key() else f"{file} holds no key; delete it"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent)  # mode 0600
        try:
            with os.fdopen(handle, "w") as opened:
                opened.write(secrets.token_hex(32))
            os.link(name, file)  # in one step, and never over another
        except FileExistsError:
            pass
        finally:
            os.unlink(name)
    except OSError as error:
        return f"{file} cannot be made ({error.strerror})"
    return ""


def key_file() -> Path:
    """Where this user's key stands: `hw1/key` in the configuration folder of the system."""
    from platformdirs import user_config_path

    return user_config_path("hw1") / "key"


def sums(content: bytes) -> list[Any]:
    """What a record holds of a file: [bytes, SHA-256]."""
    return [len(content), hashlib.sha256(content).hexdigest()]


def _write(file: Path, record: Mapping[str, Any], key: bytes | None) -> None:
    content = {name: value for name, value in record.items() if name not in _ADDED}
    content = from_json(json.dumps(content))  # as it will be read
    checksum = _checksum(content)
    signature = {} if key is None else {"signature": _signature(file, checksum, key)}
    write_json(file, content | {"checksum": checksum} | signature)


def _read(file: Path) -> dict[str, Any]:
    if file.is_symlink():
        raise DamagedError(f"{file}: got a link, expected a file: a record is never followed; remove it")
    try:
        record = read_json(file)
    except ValueError as error:
        raise DamagedError(str(error)) from error
    if not isinstance(record, dict):
        raise DamagedError(f"{file} holds a {type(record).__name__}, not a record; delete it and run the command again")
    return record


def _seal(file: Path, record: Mapping[str, Any]) -> Seal:
    return Seal(file, str(record.get("checksum")), str(record.get("signature")))


def _content(file: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    content = {name: value for name, value in record.items() if name not in _ADDED}
    first = record.get("format", 1) == 1 and not set(_ADDED) & set(record)
    if not first and record.get("checksum") != _checksum(content):
        raise DamagedError(f"{file} is damaged: its checksum is another; delete it and run the command again")
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _signature(file: Path, checksum: str, key: bytes) -> str:
    return hmac.new(key, f"{file.name}:{checksum}".encode(), "sha256").hexdigest()


def _key() -> bytes | None:
    file = key_file()
    try:
        return _key_in(file, file.stat().st_mtime_ns)
    except OSError:
        return None


@functools.lru_cache(maxsize=8)
def _key_in(file: Path, changed: int) -> bytes | None:
    text = file.read_bytes().strip()
    return text if len(text) == 64 and set(text) <= set(b"0123456789abcdef") else None
