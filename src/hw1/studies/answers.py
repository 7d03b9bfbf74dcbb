"""What a study says in words: an answer asserts only what its interval leaves no alternative to. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hw1.studies.headlines import Headline
from hw1.words import setting_in_words

LARGE = 1e7  # a number from which on it is written with an exponent


@dataclass(frozen=True)
class Answer:
    """The paragraph of a page.

    Attributes:
        sentences: what was found, the answer to the question first.
        captions: how to read a figure, by the beginning of its name.
        columns: the columns that matter, by table; a table that is not named is folded.
        too_short: why there is no answer; the sentences are then empty.
    """

    sentences: Sequence[str] = ()
    captions: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    too_short: str = ""

    @property
    def lines(self) -> list[str]:
        """The sentences, or the one that there is none of."""
        return [self.too_short] if self.too_short else [begun(sentence) for sentence in self.sentences]


def begun(sentence: str) -> str:
    """A sentence with its first letter large, where it begins with a word and not with a name.

    Example:
        >>> begun("two dense layers fit"), begun("c3(8)-p2 fits")
        ('Two dense layers fit', 'c3(8)-p2 fits')
    """
    return sentence[:1].upper() + sentence[1:] if sentence.partition(" ")[0].isalpha() else sentence


def number(value: float, digits: int = 3) -> str:
    """A number as it is read: no exponent where it needs none.

    Example:
        >>> number(1.3449), number(0.00051684), number(98.154), number(371581)
        ('1.34', '5.17e-04', '98.2', '371,581')
    """
    if not math.isfinite(value):
        return "not finite"
    if abs(value) >= LARGE:
        return f"{value:.{digits - 1}e}"
    if value == round(value) or abs(value) >= 10**digits:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def percent(value: float) -> str:
    """A share in per cent.

    Example:
        >>> percent(0.98154), percent(1.0), percent(0.9998)
        ('98.2%', '100%', '100.0%')
    """
    text = f"{100 * value:.1f}"
    return (text.removesuffix(".0") if abs(100 * value - round(100 * value)) < 1e-9 else text) + "%"


def ranged(found: Headline, unit: str = "", of: str = "seed", write: Callable[[float], str] = number) -> str:
    """A number with its interval and what it is over.

    Args:
        found: it.
        unit: behind the number.
        of: what `found.n` counts, in the singular.
        write: how a number is written.

    Example:
        >>> ranged(Headline("barrier", 1.3449, 0.7625, 1.928, 3), "nats")
        '1.34 nats [0.762, 1.93] (3 seeds)'
        >>> ranged(Headline("barrier", 1.3449, math.nan, math.nan, 1), "nats")
        '1.34 nats (one seed: no interval)'
    """
    text = write(found.value) + (f" {unit}" if unit else "")
    if found.n == 1:
        return f"{text} (one {of}: no interval)"
    if math.isnan(found.low):
        return f"{text} ({found.n} {of}s: no interval)"
    return f"{text} [{write(found.low)}, {write(found.high)}] ({found.n} {of}s)"


def rank(found: Headline, of: str) -> str:
    """A rank correlation with its interval and what it is over.

    Example:
        >>> rank(Headline("rho", -0.9711, -0.9864, -0.8833, 15), "network")
        'rank correlation -0.97 [-0.99, -0.88], 15 networks'
    """
    value = f"rank correlation {found.value:.2f}"
    if found.n == 1:  # exchanged within it, which says nothing of another
        return f"{value}, one {of}: nothing follows"
    return f"{value}{'' if math.isnan(found.low) else f' [{found.low:.2f}, {found.high:.2f}]'}, {found.n} {of}s"


def level_of_all(groups: int, level: float = 0.95) -> float:
    """The level of an interval between two of several groups, so that all pairs together have `level` (Bonferroni).

    The largest of several is picked by the data that it is then held against the others with: two of six groups that
    are alike differ "at 95%" in a third of all cases.

    Example:
        >>> level_of_all(2), round(level_of_all(4), 4)
        (0.95, 0.9917)
    """
    return 1 - (1 - level) / max(1, math.comb(groups, 2))


def settled(found: Headline, border: float) -> int:
    """On which side of a border the whole interval lies: 1 above, -1 below, 0 undecided.

    Example:
        >>> settled(Headline("rho", -0.9, -1.0, -0.5, 9), 0), settled(Headline("rho", -0.9, -1.0, 0.5, 9), 0)
        (-1, 0)
        >>> settled(Headline("rho", -0.9, math.nan, math.nan, 1), 0)
        0
    """
    return int(found.low > border) - int(found.high < border)


def verdict(found: Headline, border: float, above: str, below: str, of: str = "seed") -> str:
    """What follows: `above`, `below`, or that it is undecided.

    Example:
        >>> verdict(Headline("barrier", 1.3, 0.8, 1.9, 3), 0.1, "two valleys", "one valley")
        'two valleys'
        >>> verdict(Headline("barrier", 0.3, -0.8, 1.9, 3), 0.1, "two valleys", "one valley")
        'undecided, n = 3'
        >>> verdict(Headline("barrier", 1.3, math.nan, math.nan, 1), 0.1, "two valleys", "one valley")
        'nothing follows from one seed'
    """
    side = settled(found, border)
    if side:
        return above if side > 0 else below
    return f"nothing follows from one {of}" if found.n == 1 else f"undecided, n = {found.n}"


def where_in_words(values: Mapping[str, object]) -> str:
    """Settings as a sentence names them; "" where there are none.

    Example:
        >>> where_in_words({"optimizer.lr": 0.1, "init": "shared", "model": "reports/cnn_242k"})
        'with learning rate 0.1, shared start and model cnn_242k'
    """
    named = [setting_in_words(key, value) for key, value in values.items()]
    return f"with {listed(named)}" if named else ""


def listed(words: Sequence[str]) -> str:
    """`a, b and c`.

    Example:
        >>> listed(["a", "b", "c"]), listed(["a"]), listed([])
        ('a, b and c', 'a', '')
    """
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)
