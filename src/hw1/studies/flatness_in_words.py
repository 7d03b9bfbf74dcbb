"""What sensitivity and sharpness go along with, in words. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hw1.metrics import GAPS, TEST_ACCURACY, TEST_LOSS, TRAIN_LOSS, label
from hw1.studies.answers import Answer, rank, settled
from hw1.studies.headlines import Headline, unseeded
from hw1.studies.learned import left_out_of_settings

if TYPE_CHECKING:
    import pandas as pd

GIVEN = f"given={TRAIN_LOSS}"  # at the end of the name of a number


def flatness_in_words(
    across: str, tables: Mapping[str, pd.DataFrame], keys: Sequence[str], numbers: Sequence[Headline]
) -> Answer:
    """The answer of the study of flatness and sensitivity.

    Args:
        across: what the x axis shows: a swept setting, or a gap.
        tables: `points`, `measures`, and `unreached` where there is one.
        keys: the swept keys.
        numbers: the study's headlines.
    """
    known = {name: name.replace("_", " ").replace("/", " ") for name in (TEST_ACCURACY, TEST_LOSS)}
    known |= {name: label(name) for name in GAPS}
    known |= {row.name: row.label for row in tables["measures"].itertuples(index=False)}
    sentences, of = [], "network" if across in GAPS else "seed"
    for found in numbers:
        word, _, rest = found.name.partition(" ")
        column, _, others = rest.partition(" ")
        if word != "spearman_rho" or column not in known:
            continue
        given = others.endswith(GIVEN)
        where = others.removeprefix(across).removesuffix(GIVEN).strip()
        subject = known[column] if known[column][:1].isupper() else f"the {known[column]}"
        start = f"{where}: {subject}" if where else f"{subject[:1].upper()}{subject[1:]}"
        if math.isnan(found.value):
            continue
        if found.n > 1 and settled(found, 0):
            goes = "rises" if found.value > 0 else "falls"
            text = f"{goes} with the {label(across)}"
        else:
            text = f"shows no settled relation to the {label(across)}"
        sentences.append(f"{start} {text} ({rank(found, of)}{', given the train loss' if given else ''}).")
    if any(found.name.endswith(GIVEN) for found in numbers):
        sentences.append(
            "Networks were stopped where an epoch ended below the train loss that was asked for: what goes with "
            "the small differences that are left of it is taken off the correlations that are given it."
        )
    sentences += left_out_of_settings(tables["points"])
    if "unreached" in tables:
        lost, all_of = len(tables["unreached"]), len(tables["points"])
        sentences.append(f"{lost} of {all_of} networks never came to the train loss, and are left out.")
    means = "A dot is a mean over seeds, the band their range"
    captions = {
        "loss": f"{means}; the axis on the right is that of sensitivity.",
        "accuracy": f"{means}; the axis on the right is that of sensitivity.",
        "sharpness": f"Each panel is one measure of sharpness; larger is sharper. {means}.",
        "gap": "Each dot is one network: a measure against how much worse it is on the test set.",
    }
    shown = [*(name for name in (TRAIN_LOSS, TEST_LOSS, TEST_ACCURACY) if name in tables["points"])]
    columns = [*unseeded(keys), "seed", *shown, *tables["measures"]["name"]]
    return Answer(sentences, captions, {"points": columns})
