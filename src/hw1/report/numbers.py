"""The headlines of two sweeps, each beside its like. No torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from hw1.metrics import label
from hw1.report.differences import Difference, of_headlines
from hw1.runs import Sweep
from hw1.studies.headlines import Headline


def numbers(a: Sweep, b: Sweep, moved: Collection[str]) -> list[Difference]:
    """The headlines that both have: of one name, or of one that differs in the values of settings alone.

    Args:
        a: one sweep.
        b: the other.
        moved: keys of which A and B do not have the same values: a name may differ in these before it may differ in
            any.
    """
    ours, theirs = _headlines(a), _headlines(b)
    found = [of_headlines(_said(name, name), one, theirs[name]) for name, one in ours.items() if name in theirs]
    left = [[name for name in own if name not in other] for own, other in ((ours, theirs), (theirs, ours))]
    for keys in (moved, None):
        stems = [_stems(names, keys) for names in left]
        for stem, names in stems[0].items():
            others = stems[1].get(stem, [])
            if len(names) == len(others) == 1:
                found.append(of_headlines(_said(names[0], others[0]), ours[names[0]], theirs[others[0]]))
                left[0].remove(names[0])
                left[1].remove(others[0])
    return found


def _headlines(sweep: Sweep) -> dict[str, Headline]:
    found = {}
    for number in sweep.record.get("numbers", []):
        try:
            one = Headline(**number)
            if all(is_number(value) for value in (one.value, one.low, one.high, one.n)):
                found[str(one.name)] = one
        except TypeError:  # of a version with other fields
            continue
    return found


def _stems(names: Iterable[str], keys: Collection[str] | None) -> dict[str, list[str]]:
    """Names by what is left of them without the values of some settings; of all where `keys` is None.

    Example:
        >>> _stems(["barrier init=shared dataset.batch_size=64-1024"], ["dataset.batch_size"])
        {'barrier init=shared dataset.batch_size=': ['barrier init=shared dataset.batch_size=64-1024']}
    """
    found: dict[str, list[str]] = {}
    for name in names:
        parts = [word.partition("=") for word in name.split()]
        words = [
            f"{key}{equals}" + (value if keys is not None and key not in keys else "") for key, equals, value in parts
        ]
        found.setdefault(" ".join(words), []).append(name)
    return found


def _said(name: str, other: str) -> str:
    """A headline's name, and that of the other sweep where values differ, with settings as people call them.

    Example:
        >>> _said("barrier optimizer.lr=0.1 init=shared", "barrier optimizer.lr=0.01 init=shared")
        'barrier, learning rate 0.1 | 0.01, init shared'
    """
    said: list[str] = []
    for one, two in zip(name.split(), other.split(), strict=True):
        (key, equals, value), (_, _, its) = one.partition("="), two.partition("=")
        said.append(f"{label(key)} {value}" + (f" | {its}" if its != value else "") if equals else key)
    bare = next((i for i, word in enumerate(name.split()) if "=" in word), len(said))
    return ", ".join([" ".join(said[:bare]), *said[bare:]])


def is_number(value: object) -> bool:
    """Whether a value from a record is a number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
