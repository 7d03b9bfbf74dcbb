"""What measures found on a run: one self-checking file a measurement, in the run's folder. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hw1.files import lasting
from hw1.inside import inside, is_name
from hw1.records import FORMAT, read_record, rewrite_record, sums, write_record
from hw1.seeds import digest
from hw1.training.contents import difference


@dataclass(frozen=True)
class Ask:
    """A measure that is asked for.

    Attributes:
        name: what the command calls it, `sharpness`.
        node: its `_target_` and settings.
        differs: settings in which it differs from what the sweep, or else conf/, asks by this name; its columns say so.
    """

    name: str
    node: Mapping[str, Any]
    differs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The end of its columns' names.

        Example:
            >>> Ask("sharpness", {}, {"examples": 2048}).label, Ask("sharpness", {}).label
            ('[examples=2048]', '')
        """
        return f"[{','.join(f'{name}={value}' for name, value in self.differs.items())}]" if self.differs else ""

    def file(self, run: Path) -> Path:
        """Where a run's measurement stands."""
        return inside(run / "measures", f"{self.name}-{digest(self.node)[:10]}.json")

    def record(self) -> dict[str, Any]:
        """What sweep.json holds of it."""
        return {"name": self.name, "node": dict(self.node), "differs": dict(self.differs)}


def asks_in(record: Mapping[str, Any]) -> list[Ask]:
    """The measures that a sweep.json asks for: the command's own, then those taken later.

    Args:
        record: its content.
    """
    entries = [*record.get("measures", []), *record.get("measured_later", [])]
    return [Ask(entry["name"], entry["node"], entry.get("differs", {})) for entry in entries]


@dataclass(frozen=True)
class Measured:
    """One measurement of one run.

    Attributes:
        measure: the measure's name.
        key: hash of the weights, the data, the measure's settings and its version.
        columns: of `values`: {name: {"label", "unit", "error"}}, see `hw1.measures.Column`.
        values: one value a member by column, [R] each.
        rows: a longer table, one mapping a row; each names its `member`.
        files: {file name: [bytes, SHA-256]} of what stands beside the measurement.
        seconds: that it took.
        error: why it failed; "" if it did not.
    """

    measure: str
    key: str
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    files: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""


def write_measured(file: Path, measured: Measured, files: Mapping[str, bytes], own: bool = True) -> Measured:
    """Write a measurement, its files first; returns it with their sizes and hashes.

    Args:
        file: `Ask.file` of the run.
        measured: without its files.
        files: {name: content} of what stands beside it, as `<measurement>.<name>`.
        own: whether it was measured just now: else it is signed only if it was before.
    """
    for name, content in files.items():
        with lasting(beside(file, name)) as temporary:
            temporary.write_bytes(content)
    record = asdict(measured) | {"files": {name: sums(content) for name, content in files.items()}, "format": FORMAT}
    (write_record if own else rewrite_record)(file, record)
    return Measured(**{name: value for name, value in record.items() if name != "format"})


def read_measured(file: Path) -> Measured | None:
    """A measurement; None where there is none, or its file or one beside it is damaged."""
    try:
        record = read_record(file)
        if record.pop("format") not in (1, FORMAT):
            return None
        measured = Measured(**record)
        if any(difference(beside(file, name), *listed) for name, listed in measured.files.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # absent, cut, or not a measurement
        return None
    return measured


def beside(file: Path, name: str) -> Path:
    """The path of a measurement's file `name`.

    Raises:
        DamagedError: it is no name of a file, or a link stands there.
    """
    return inside(file.parent, f"{file.stem}.{name}" if is_name(name) else name)
