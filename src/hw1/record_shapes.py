"""What stands where in the records that hw1 writes: of a file from elsewhere, a checksum says nothing of that.

Readers take a number for a number and a mapping for a mapping; here, in one place, a record is refused where it is not.
What a later version adds is let through, and what earlier ones lack may be missing. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Problems = Iterator[tuple[str, object, str]]  # (dotted key, what was got, what is expected)
Shape = Callable[[Any, str], Problems]


def _of(kinds: tuple[type, ...], expected: str) -> Shape:
    """A plain value; a truth is no number."""

    def problems(value: Any, key: str) -> Problems:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            yield key, value, expected

    return problems


def _count(value: Any, key: str) -> Problems:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        yield key, value, "an integer of at least 0"


def _either(shape: Shape, *others: Any) -> Shape:
    """A shape, or one of some values."""

    def problems(value: Any, key: str) -> Problems:
        if value not in others:
            for name, got, expected in shape(value, key):
                yield name, got, f"{expected} or {' or '.join('null' if one is None else str(one) for one in others)}"

    return problems


def _list(inner: Shape) -> Shape:
    def problems(value: Any, key: str) -> Problems:
        if not isinstance(value, list):
            yield key, value, "a list"
            return
        for number, one in enumerate(value):
            yield from inner(one, f"{key}.{number}")

    return problems


def _map(inner: Shape) -> Shape:
    def problems(value: Any, key: str) -> Problems:
        if not isinstance(value, Mapping):
            yield key, value, "a mapping"
            return
        for name, one in value.items():
            yield from inner(one, f"{key}.{name}" if key else str(name))

    return problems


class _Nothing:
    """What stands where nothing does."""

    def __repr__(self) -> str:
        return "nothing"


_NOTHING = _Nothing()


def _with(shapes: Mapping[str, Shape], needed: tuple[str, ...] = ()) -> Shape:
    """A mapping, some of whose keys have shapes, and some of whose keys must be there."""

    def problems(value: Any, key: str) -> Problems:
        if not isinstance(value, Mapping):
            yield key, value, "a mapping"
            return
        before = f"{key}." if key else ""
        for name in needed:
            if name not in value:
                yield f"{before}{name}", _NOTHING, "a value"
        for name, shape in shapes.items():
            if name in value:
                yield from shape(value[name], f"{before}{name}")

    return problems


def _sums(value: Any, key: str) -> Problems:
    """[bytes, SHA-256]; without a hash where only the size is known."""
    sizes = isinstance(value, list) and len(value) == 2 and isinstance(value[0], int) and not isinstance(value[0], bool)
    if not sizes or not isinstance(value[1], str):
        yield key, value, "[bytes, SHA-256]"


def _any(value: Any, key: str) -> Problems:
    yield from ()


def _file_name(value: Any, key: str) -> Problems:
    if not isinstance(value, str) or not value or set(value) & set("/\\\0") or value.startswith("."):
        yield key, value, "a name that a file can have"


_TEXT, _NUMBER = _of((str,), "text"), _of((int, float), "a number")
_ITEM = _of((str, int, float, bool, type(None)), "text or a number")
_VALUE = _either(_NUMBER, None)  # a metric that is not there
_FILES = _map(_sums)
_NODE = _either(_with({"_target_": _TEXT}), None)
_ASK = _with({"name": _file_name, "node": _with({}), "differs": _map(_any)}, needed=("name", "node"))


def _metric(value: Any, key: str) -> Problems:
    yield from (_list(_VALUE) if isinstance(value, list) else _VALUE)(value, key)


def _files_of_sweep(value: Any, key: str) -> Problems:
    """With sums; of an earlier version, names alone."""
    yield from (_list(_TEXT) if isinstance(value, list) else _FILES)(value, key)


_DATASET = _with(
    {"name": _TEXT, "source": _TEXT, "train": _count, "test": _count, "sha256": _either(_TEXT, None)},
    needed=("name", "source", "train"),
)
_RESULT = _with(
    {
        "status": _TEXT,
        "key": _TEXT,
        "name": _TEXT,
        "overrides": _list(_ITEM),
        "formerly": _list(_TEXT),
        "seed": _count,
        "replicas": _count,
        "parameters": _count,
        "epochs": _count,
        "steps": _count,
        "seconds": _NUMBER,
        "metrics": _map(_metric),
        "constant": _either(_map(_VALUE), None),
        "dataset": _DATASET,
        "versions": _map(_ITEM),
        "code": _either(_map(_TEXT), None),
        "settings": _with({}),
        "files": _FILES,
        "removed": _FILES,
        "error": _TEXT,
    },
    needed=("status",),
)
_COMPLETE = _with({}, needed=("metrics", "dataset", "parameters"))


def _result(value: Any, key: str) -> Problems:
    yield from _RESULT(value, key)
    if isinstance(value, Mapping) and value.get("status") == "complete":
        yield from _COMPLETE(value, key)


_NUMBERS = _list(_with({"name": _TEXT, "value": _VALUE, "low": _VALUE, "high": _VALUE, "n": _either(_count, None)}))
_SWEEP = _with(
    {
        "name": _TEXT,
        "status": _TEXT,
        "command": _list(_ITEM),
        "swept": _list(_TEXT),
        "study": _NODE,
        "measures": _list(_ASK),
        "measured_later": _list(_ASK),
        "runs": _list(_any),  # what is no run is left out, and said: see `hw1.runs.standing.strays`
        "trained": _list(_TEXT),
        "launched": _list(_TEXT),
        "launched_at": _NUMBER,
        "measuring_threads": _either(_count, None),
        "files": _files_of_sweep,
        "caches": _FILES,
        "failed": _map(_TEXT),
        "answer": _list(_TEXT),
        "captions": _map(_TEXT),
        "headlines": _list(_TEXT),
        "numbers": _NUMBERS,
        "budget": _TEXT,
        "digest": _either(_TEXT, None),
    }
)
_COLUMN = _with(dict.fromkeys(("label", "unit", "error"), _TEXT), needed=("label", "unit", "error"))
_SETTINGS = _with({"settings": _with({}), "code": _either(_map(_TEXT), None), "data": _either(_TEXT, None)})
_MEASURED = _with(
    {
        "measure": _TEXT,
        "key": _TEXT,
        "columns": _map(_COLUMN),
        "values": _map(_list(_NUMBER)),
        "rows": _list(_map(_any)),
        "files": _FILES,
        "seconds": _NUMBER,
        "error": _TEXT,
    }
)
_STOPPED = _with({"place": _map(_count), "stops": _count}, needed=("place", "stops"))
_SHAPES: Mapping[str, Shape] = {
    **{"result.json": _result, "sweep.json": _SWEEP, "settings.json": _SETTINGS, "preempted.json": _STOPPED},
}


def misshapen(name: str, folder: str, record: Mapping[str, Any]) -> str:
    """What is wrong with a record that is whole; "" if nothing is.

    Args:
        name: of its file.
        folder: that the file stands in.
        record: its content.

    Example:
        >>> misshapen("result.json", "runs", {"status": "failed", "error": None})
        'error: got None, expected text'
    """
    shape = _SHAPES.get(name, _MEASURED if folder == "measures" else None)
    for key, got, expected in shape(record, "") if shape is not None else ():
        shown = repr(got)
        return f"{key}: got {shown if len(shown) < 60 else shown[:57] + '...'}, expected {expected}"
    return ""
