"""What a job reads of the command that launched it, as much for one of ten thousand as for one of ten. No torch.

The command's own record names all of its runs. A job that read it, or looked at the others' results to say how many
have ended, would take longer the more of them there are, and all together the square of that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hw1.records import FORMAT, read_record, write_record
from hw1.runs.measured import Ask, asks_in


@dataclass(frozen=True)
class Order:
    """What jobs of one kind are told.

    Attributes:
        trains: whether they train, or only measure.
        measures: what is measured, see `Ask.record`.
        threads: torch's while they measure; None for each run's own.
        runs: how many the command asked for, the finished ones too.
        launched: how many of these it launched.
        launched_at: Unix time.
        counter: the file that has a byte for each that has ended.
        workers: how many of them are at work at a time; 1 where the launcher does not say.
        pieces: (the name of a measurement's file, a piece) of what one job computes; None for whole measurements.
    """

    trains: bool
    measures: list[dict[str, Any]]
    threads: int | None
    runs: int
    launched: int
    launched_at: float
    counter: str
    workers: int = 1
    pieces: list[list[str]] | None = None

    @property
    def asks(self) -> list[Ask]:
        """The measures that are to be taken."""
        return asks_in({"measures": self.measures})


def write_orders(file: Path, record: Mapping[str, Any], launched: int, workers: int = 1) -> dict[bool, Path]:
    """Write the orders of a command beside its record: {whether jobs train: the file that they read}.

    Args:
        file: of the record.
        record: its content.
        launched: number of jobs.
        workers: how many of them are at work at a time.
    """
    counter = file.with_name(f".{file.stem}-ended")
    counter.unlink(missing_ok=True)
    orders = {True: file.with_name(f".{file.stem}-train.json"), False: file.with_name(f".{file.stem}-measure.json")}
    for trains, path in orders.items():
        order = Order(
            trains,
            [ask.record() for ask in asks_in(record)],
            None if trains else record.get("measuring_threads"),
            len(record.get("runs", ())),
            launched,
            float(record.get("launched_at", time.time())),
            str(counter),
            workers,
        )
        write_record(path, {"format": FORMAT, **asdict(order)})
    return orders


def write_pieces(file: Path, record: Mapping[str, Any], shares: Sequence[Sequence[tuple[str, str]]]) -> list[Path]:
    """Write the orders of jobs that compute pieces alone, beside the command's record; returns their files.

    Args:
        file: of the record.
        record: its content.
        shares: what each job computes, see `Order.pieces`.
    """
    orders = [file.with_name(f".{file.stem}-pieces-{number}.json") for number in range(len(shares))]
    counter = str(file.with_name(f".{file.stem}-ended"))
    measures = [ask.record() for ask in asks_in(record)]
    for path, share in zip(orders, shares, strict=True):
        order = Order(False, measures, record.get("measuring_threads"), 0, len(shares), time.time(), counter)
        write_record(path, {"format": FORMAT, **asdict(order), "pieces": [list(piece) for piece in share]})
    return orders


def read_order(file: Path) -> Order:
    """The order that a job was given.

    Raises:
        FileNotFoundError: its command has ended.
        DamagedError: it is not what was written.
    """
    record = read_record(file)
    return Order(**{name: value for name, value in record.items() if name != "format"})


def remove_orders(orders: Collection[Path]) -> None:
    """Remove what `write_orders` wrote."""
    for path in orders:
        path.unlink(missing_ok=True)
        counter_of(path).unlink(missing_ok=True)


def counter_of(order: Path) -> Path:
    """The file that counts beside an order."""
    return order.with_name(f"{order.stem.rpartition('-')[0]}-ended")


def count_end(counter: str | os.PathLike[str]) -> int:
    """Count a job that has ended; returns how many have. It is only said: where nothing can be written, 0."""
    with suppress(OSError):
        handle = os.open(counter, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            os.write(handle, b".")
            return os.fstat(handle).st_size
        finally:
            os.close(handle)
    return 0
