"""Files that are whole or absent: a killed process leaves the old content or the new, never half of either."""

import contextlib
import datetime
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends without an error it replaces `path` in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two writers apart; the prefix keeps globs like *.safetensors from seeing half a file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def new_folder(base: Path) -> Path:
    """A folder in `base` that was not there, named by the present second; two processes never get the same."""
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for name in itertools.chain([stamp], (f"{stamp}_{i}" for i in itertools.count(2))):
        try:
            (base / name).mkdir(parents=True)
        except FileExistsError:
            continue
        return base / name
    raise AssertionError("the names never end")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` atomically; NaN is refused by no one and read back by Python."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; a broken file is a ValueError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or not UTF-8
        raise ValueError(f"{path} is not valid JSON ({error}); delete it and run the command again") from error


def file_digest(file: Path) -> str:
    """Hex SHA-256 of a file; hashed once a process while it stays as it is."""
    status = file.stat()
    return _digest(file, status.st_size, status.st_mtime_ns)


def file_sums(file: Path) -> list[Any]:
    """What records hold of a file: [bytes, SHA-256]."""
    return [file.stat().st_size, file_digest(file)]


@functools.lru_cache(maxsize=4096)
def _digest(file: Path, size: int, time: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
