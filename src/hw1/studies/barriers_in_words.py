"""What stands between two networks, in words: the barrier, and which of the ends is the sharper. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hw1.metrics import ACCURACY, ADOPTED, BATCH_SIZE, LOSS, STATISTICS, STATISTICS_NOTE, label, unit
from hw1.studies.answers import Answer, listed, number, ranged, verdict, where_in_words
from hw1.studies.headlines import geometric_headline, headline, parts
from hw1.studies.learned import TABLE, constant_loss

if TYPE_CHECKING:
    import pandas as pd

BARRIER = 0.05  # of the best constant prediction's loss: what is called a barrier
SHARPNESS = "sharpness/keskar_1e-3"


def barriers_in_words(tables: Mapping[str, pd.DataFrame], own: Sequence[str], pair_by: str) -> Answer:
    """The answer of the study of interpolations.

    Args:
        tables: `barriers`, what has learned, and `interpolation`.
        own: the keys that tell pairs of one setting apart, but the seed.
        pair_by: the setting that the two networks of a pair differ in.
    """
    table = tables["barriers"]
    table = table[table["split"] == "test"]
    varied = [key for key in own if table[key].nunique() > 1]
    border = BARRIER * constant_loss(tables[TABLE])
    sentences: list[str] = []
    named: set[tuple[str, ...]] = set()
    for values, part in parts(table, [*own, "theta_1", "theta_2"]):
        ends = _ends(pair_by, values.pop("theta_1"), values.pop("theta_2"))
        where = where_in_words({key: values[key] for key in varied})
        found = headline("barrier", list(part["barrier"]), least=0)
        follows = (
            ""
            if math.isnan(border)
            else (f": {verdict(found, border, 'they lie in different valleys', 'they lie in one valley')}")
        )
        start = f"{where[:1].upper()}{where[1:]}: between" if where else "Between"
        height = ranged(found, unit(LOSS, classes=f"{ACCURACY}_at_0" in part, table=part))
        sentences.append(f"{start} {listed(ends)} stands a barrier of {height}{follows}.")
        sentences += _sharper(part, ends[1])
        named.add(tuple(ends))
    where = " is {}, alpha = 1 {}".format(*named.pop()) if len(named) == 1 else " and 1 are the two"
    caption = (
        f"The loss and the accuracy on the straight line through the weights of two networks: alpha = 0{where}. The "
        "barrier is how far the test loss rises above the straight line between its values at the two ends; the "
        "black bar is that of the mean curve, the number the mean over seeds"
        + ("." if math.isnan(border) else f". {number(border)} and more count as a barrier.")
    )
    if STATISTICS in tables.get("interpolation", ()):
        caption += f" {STATISTICS_NOTE[:1].upper()}{STATISTICS_NOTE[1:]}, the two ends among them."
    columns = ["seed", *own, "theta_1", "theta_2", "split", "barrier", "loss_at_0", "loss_at_1"]
    return Answer(sentences, {"interpolation": caption}, {"barriers": columns})


def _ends(pair_by: str, first: object, second: object) -> list[str]:
    """What the two networks are called."""
    if pair_by == ADOPTED:
        return [str(first), str(second)]
    if pair_by == BATCH_SIZE:
        return [f"the small-batch solution ({first})", f"the large-batch solution ({second})"]
    return [f"the solution at {label(pair_by)} {value}" for value in (first, second)]


def _sharper(part: pd.DataFrame, second: str) -> list[str]:
    """How many times as sharp the second end is as the first, where a measure found it of both."""
    names = [f"{SHARPNESS}_at_{end}" for end in (0, 1)]
    if not set(names) <= set(part) or not (part[names] > 0).all(axis=None):
        return []
    found = geometric_headline("ratio", list(part[names[1]] / part[names[0]]))
    follows = verdict(found, 1, "it is the sharper of the two", "it is the flatter of the two")
    return [f"There {second} is {ranged(found, 'times')} as sharp as the other (Keskar's sharpness): {follows}."]
