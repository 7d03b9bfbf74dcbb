"""Two sweeps side by side: the settings in which they differ, and how far apart they are, with intervals. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hw1.metrics import METRICS, label
from hw1.report.differences import Difference, of_seeds
from hw1.report.numbers import is_number, numbers
from hw1.runs import Member, Sweep
from hw1.runs.inventory import flat
from hw1.settings import ConfigError
from hw1.settings.identity import deciding, without
from hw1.studies.headlines import unseeded
from hw1.words import count


@dataclass(frozen=True)
class Setting:
    """A setting, or a circumstance, in which two sweeps differ.

    Attributes:
        name: dotted key.
        a: its values in A, in words.
        b: its values in B.
    """

    name: str
    a: str
    b: str


@dataclass(frozen=True)
class Comparison:
    """Two sweeps side by side.

    Attributes:
        a: the one that is compared with.
        b: the other; differences are B minus A.
        settings: in which they differ.
        numbers: the headlines of both, those that answer the study's question.
        metrics: what every setting that both have came to.
        notes: what a reader must know of how they were matched.
    """

    a: Sweep
    b: Sweep
    settings: Sequence[Setting]
    numbers: Sequence[Difference]
    metrics: Sequence[Difference]
    notes: Sequence[str]

    @property
    def summary(self) -> str:
        """How many intervals exclude 0, and how many would by chance; those of what is the same cannot."""
        judged = [one for one in self.metrics if one.how and not one.same]
        if not judged:
            if any(one.same for one in self.metrics):
                return "Wherever metrics have an interval they are the same in both sweeps."
            return (
                "No difference of metrics has an interval: that takes two seeds of a setting in both sweeps, of runs "
                "that are not the same."
            )
        decided = sum(one.decided for one in judged)
        return (
            f"{decided} of {count(len(judged), 'interval')} of metrics exclude{'s' if decided == 1 else ''} 0; if "
            f"nothing differed, about {0.05 * len(judged):.2g} would."
        )


def compare(a: Sweep, b: Sweep, metrics: Sequence[str] = ()) -> Comparison:
    """Put two sweeps side by side.

    Args:
        a: the one that is compared with.
        b: the other.
        metrics: names of metrics and columns of measures; all that both have if none is named.

    Raises:
        ConfigError: they are the same, one has no complete run, or a metric is not there.
    """
    if a.path.resolve() == b.path.resolve():
        raise ConfigError(f"{a.path}: got this sweep twice, expected two")
    members = [list(sweep.members()) for sweep in (a, b)]
    for sweep, own in zip((a, b), members, strict=True):
        if not own:
            raise ConfigError(f"{sweep.path}: got a sweep without a complete run, expected one; run its command first")
    errors = {column["error"] for sweep in (a, b) for column in sweep.columns().values()}
    known = dict.fromkeys(name for own in members for member in own for name in member.metrics if name not in errors)
    names = [name for name in (*METRICS, *(name for name in known if name not in METRICS)) if name in known]
    if unknown := [name for name in metrics if name not in names]:
        raise ConfigError(f"metrics: got {', '.join(unknown)}, expected some of {', '.join(names)}")
    keys = unseeded(dict.fromkeys([*a.keys, *b.keys]))
    partners, notes = _partners(a, b, keys, members)
    notes = [*_unfinished(a, b), *notes]
    if shared := len({run.key for run in a.runs} & {run.key for run in b.runs}):
        are = "is" if shared == 1 else "are"
        notes.append(
            f"{count(shared, 'run')} of both sweeps {are} the same: no difference of trainings is to be seen there."
        )
    found = _metrics((a, b), keys, partners, members, metrics or names)
    labels = {name: told["label"] for sweep in (a, b) for name, told in sweep.columns().items()}
    told = [replace(one, name=labels.get(one.name) or label(one.name)) for one in found]
    notes += _not_finite(told)
    moved = [
        key for key in keys if len({frozenset(_cells(s, own, key)) for s, own in zip((a, b), members, strict=True)}) > 1
    ]
    return Comparison(a, b, _settings(a, b), numbers(a, b, moved), told, notes)


def _not_finite(found: Iterable[Difference]) -> list[str]:
    """In how many seeds of which setting quantities are not finite, as after a training that diverged."""
    names: dict[str, list[str]] = {}
    for one in found:
        for letter, lost, asked in zip("AB", one.lost, one.asked, strict=True):
            if lost:
                where = f" at {one.setting}" if one.setting else ""
                names.setdefault(f"{letter}{where}: not finite in {lost} of {count(asked, 'seed')}", []).append(
                    one.name
                )
    return [f"{said}: {', '.join(of)}." for said, of in names.items()]


def _unfinished(a: Sweep, b: Sweep) -> list[str]:
    """Of which sweep not all runs are there."""
    notes = []
    for letter, sweep in (("A", a), ("B", b)):
        complete, asked = len(sweep.complete().runs), len(sweep.record["runs"])
        if complete < asked:
            notes.append(f"{letter} is {sweep.status}: {complete} of its {count(asked, 'run')} are complete.")
    return notes


Cells = tuple[Any, ...]


def _partners(
    a: Sweep, b: Sweep, keys: Sequence[str], members: Sequence[Sequence[Member]]
) -> tuple[dict[str, dict[Any, Any]], list[str]]:
    """({key: {value of A: value of B with which it is compared}}, what to say of it).

    Where no value is in both and both have as many, they are compared in their order: the smallest with the smallest.
    """
    partners: dict[str, dict[Any, Any]] = {}
    notes = []
    for key in keys:
        own = [_ordered(_cells(sweep, found, key)) for sweep, found in zip((a, b), members, strict=True)]
        partners[key] = {value: value for value in own[0] if value in own[1]}
        if not partners[key] and len(own[0]) == len(own[1]):
            partners[key] = dict(zip(*own, strict=True))
            pairs = ", ".join(f"{one} with {other}" for one, other in partners[key].items())
            notes.append(f"{key}: no value is in both sweeps; compared in their order: {pairs}.")
    return partners, notes


def _cells(sweep: Sweep, members: Iterable[Member], key: str) -> set[Any]:
    return {sweep.cell(member.run, key) for member in members}


def _found(members: Iterable[Member]) -> set[tuple[Any, int, str]]:
    """Which trainings these are, and what was measured of them."""
    return {(one.run.path.resolve(), one.seed, repr(sorted(one.metrics.items()))) for one in members}


def _ordered(values: Iterable[Any]) -> list[Any]:
    return sorted(values, key=lambda value: (isinstance(value, str), str(value) if isinstance(value, str) else value))


def _metrics(
    sweeps: Sequence[Sweep],
    keys: Sequence[str],
    partners: Mapping[str, Mapping[Any, Any]],
    members: Sequence[Sequence[Member]],
    names: Sequence[str],
) -> list[Difference]:
    """The difference in every metric at every setting, those of one sweep alone last.

    Of a setting at which both have the very same runs, measured alike, there is none.
    """
    tables: list[dict[Cells, list[Member]]] = [{}, {}]
    for by_cells, sweep, own in zip(tables, sweeps, members, strict=True):
        for member in own:
            cells = tuple(sweep.cell(member.run, key) for key in keys)
            by_cells.setdefault(cells, []).append(member)
    found, alone, matched = list[Difference](), list[Difference](), set[Cells]()
    for cells, ours in tables[0].items():
        other = tuple(partners[key].get(cell) for key, cell in zip(keys, cells, strict=True))
        theirs = tables[1].get(other, [])
        if theirs:
            matched.add(other)
        if theirs and _found(ours) == _found(theirs):
            continue
        (found if theirs else alone).extend(_at(keys, cells, other if theirs else cells, ours, theirs, names))
    for cells, theirs in tables[1].items():
        if cells not in matched:
            alone += _at(keys, cells, cells, [], theirs, names)
    return [*found, *alone]


def _at(
    keys: Sequence[str],
    cells: Cells,
    others: Cells,
    ours: Sequence[Member],
    theirs: Sequence[Member],
    names: Sequence[str],
) -> list[Difference]:
    words = [
        f"{label(key)} {one}" if one == other else f"{label(key)} {one} | {other}"
        for key, one, other in zip(keys, cells, others, strict=True)
    ]
    found = []
    for name in names:
        a, b = ({m.seed: m.metrics[name] for m in own if is_number(m.metrics.get(name))} for own in (ours, theirs))
        if a or b:
            most = 1.0 if name.endswith("accuracy") else math.inf
            found.append(of_seeds(name, ", ".join(words), a, b, most))
    return found


def _settings(a: Sweep, b: Sweep) -> list[Setting]:
    """Settings of runs, of the study and of measures, and circumstances, that are not the same in both."""
    found: list[dict[str, list[Any]]] = []
    for sweep in (a, b):
        values: dict[str, list[Any]] = {}
        for run in sweep.runs:
            for name, value in flat(without(deciding(run.settings.plain), ["seed"])).items():
                values.setdefault(name, []).append(value)
            values.setdefault("seed", []).extend(run.settings.seed + member for member in range(run.count))
            result = run.result
            versions = result.get("versions", {})
            circumstances = {
                "data source": result.get("dataset", {}).get("source"),
                "hw1": versions.get("hw1"),
                "torch": versions.get("torch"),
                "commit": result.get("git"),
            }
            for name, value in circumstances.items():
                values.setdefault(name, []).extend([] if value is None else [value])
        for name, value in flat({"study": sweep.record["study"] or {}}).items():
            values[name] = [value]
        for ask in sweep.asks:
            for name, value in flat({"measures": {ask.name: ask.node}}).items():
                values.setdefault(name, []).append(value)
        found.append(values)
    names = dict.fromkeys([*found[0], *found[1]])
    told = [Setting(name, _listed(found[0].get(name, [])), _listed(found[1].get(name, []))) for name in names]
    return [one for one in told if one.a != one.b]


def _listed(values: Sequence[Any]) -> str:
    """The distinct values, in their order; a row of integers by its ends.

    Example:
        >>> _listed([3, 1, 2, 1]), _listed([0.1, 0.01]), _listed([]), _listed([None])
        ('1 to 3', '0.01, 0.1', '-', 'null')
    """
    distinct = {str(value): value for value in ("null" if value is None else value for value in values)}
    try:
        ordered = _ordered(distinct.values())
    except TypeError:  # lists, or true beside text
        ordered = list(distinct.values())
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in ordered)
    if whole and len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:
        return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(map(str, ordered)) or "-"
