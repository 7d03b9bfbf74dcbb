"""Which networks of a sweep have learned anything: no conclusion rests on those that have not. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hw1.metrics import TRAIN_ACCURACY, TRAIN_LOSS
from hw1.settings import ConfigError
from hw1.studies.answers import listed
from hw1.studies.headlines import parts
from hw1.words import count, setting_in_words

if TYPE_CHECKING:
    import pandas as pd

    from hw1.runs import Sweep

LOSS_SHARE = 0.8  # of the best constant prediction's train loss: at most so much,
MARGIN = 0.1  # and, of the way from the accuracy of the commonest class to 1, at least so much
SPARED = 0.1  # a question is answered though so many of the networks that must have learned have not
MOST = 0.5  # of the networks of a setting have learned, or it is one that does not learn
TABLE = "networks_trained"  # what the table is called among a sweep's


def training(sweep: Sweep) -> pd.DataFrame:
    """One row a member: run, member, the swept keys, seed, train loss and accuracy, and whether it has learned.

    Learned has what comes to a train loss of at most `LOSS_SHARE` of the best constant prediction's and, with classes,
    an accuracy `MARGIN` of the way from that of the commonest class to 1. Both are of the training set, in evaluation
    mode: a network that fits random labels has learned them. Of a loss that is not that of the data's kind, whose least
    value is not known (label smoothing's is not 0), it has to come below the constant's.

    Columns: run, member, seed, the swept keys, train/loss, loss_share (of the constant's; NaN where that is not
    known), train/accuracy, above_constant (share of that way; both NaN without classes), learned.
    """
    import pandas as pd

    rows = []
    for member in sweep.members():
        constant = member.run.constant()
        loss, accuracy = (member.metrics.get(name, math.nan) for name in (TRAIN_LOSS, TRAIN_ACCURACY))
        best = constant.get("loss") or constant.get("other_loss")
        share = loss / best if best else math.nan
        most = LOSS_SHARE if "loss" in constant else 1.0
        left = 1 - constant.get("accuracy", math.nan)
        above = 1 - (1 - accuracy) / left if left else math.nan
        learned = math.isfinite(loss) and not share > most and not above < MARGIN
        rows.append(
            {"run": member.run.path.name, "member": member.number, **member.cells, "seed": member.seed}
            | {TRAIN_LOSS: loss, "loss_share": share, TRAIN_ACCURACY: accuracy, "above_constant": above}
            | {"learned": learned}
        )
    return pd.DataFrame(rows)


def without(table: pd.DataFrame, others: pd.DataFrame, by: Sequence[str] = ("run", "member")) -> pd.DataFrame:
    """The rows of `training` but those of members that are among `others`, told by the columns `by`."""
    named = set(others[list(by)].itertuples(index=False, name=None))
    return table[[own not in named for own in table[list(by)].itertuples(index=False, name=None)]]


def untrained(table: pd.DataFrame) -> str:
    """Why a question cannot be answered yet: too many of its networks have learned nothing; "" if it can.

    Args:
        table: rows of `training` that must have learned.

    Example:
        >>> import pandas as pd
        >>> untrained(pd.DataFrame({"learned": [True, False, False]}))
        'Too short to answer: 2 of 3 networks are at chance, or little better.'
    """
    lost = int((~table["learned"].astype(bool)).sum()) if len(table) else 0
    if lost <= SPARED * len(table):
        return ""
    return f"Too short to answer: {lost} of {count(len(table), 'network')} are at chance, or little better."


RULE = (
    f"A network counts as trained from a train loss of {LOSS_SHARE:.0%} of the best constant prediction's on and, with "
    f"classes, {MARGIN:.0%} of the way from the commonest class's accuracy to 1; under a loss of another kind than the "
    "data's from below the constant prediction's."
)


def constant_loss(table: pd.DataFrame) -> float:
    """Train loss of the best constant prediction, the mean over the rows of `training`; NaN where it is not known."""
    return float((table[TRAIN_LOSS] / table["loss_share"]).mean())


def left_out(table: pd.DataFrame) -> Sequence[str]:
    """A sentence for the few that have learned nothing where the question is answered all the same; else none."""
    lost = int((~table["learned"].astype(bool)).sum()) if len(table) else 0
    return [f"{lost} of {count(len(table), 'network')} that must have learned did not."] if lost else []


def alike(points: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """(swept values but the seed, rows) of what was trained alike but for its seed."""
    return parts(points, list(points.columns[: points.columns.get_loc("seed")]))


def learned_in_settings(sweep: Sweep, points: pd.DataFrame) -> pd.Series | None:
    """Whether each network has learned, of a setting that learns; None where data of earlier runs are gone."""
    try:
        learned = training(sweep)["learned"].astype(bool)
    except (OSError, ConfigError):  # said where the answer is
        return None
    for _, part in alike(points):
        if learned[part.index].mean() < MOST:
            learned[part.index] = False
    return learned


def left_out_of_settings(points: pd.DataFrame) -> Iterator[str]:
    """A sentence for each setting of which networks are left out: they have learned nothing, and no gap."""
    for values, part in alike(points) if "learned" in points else ():
        if lost := int((~part["learned"]).sum()):
            of = listed([setting_in_words(key, value) for key, value in values.items()])
            why = "it" if lost == 1 else "most of them" if lost == len(part) else "they"
            yield f"Left out: {lost} of {count(len(part), 'network')}{of and f' of {of}'}, as {why} learned nothing."
