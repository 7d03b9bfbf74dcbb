"""What a figure calls the parts of a table that its colours, panels or titles tell apart. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hw1.studies.headlines import Headline, parts, told_apart, unseeded
from hw1.studies.learning_curves import SERIES, SHAPE
from hw1.words import NETWORK, parameter_in_words, settings_in_words

if TYPE_CHECKING:
    import pandas as pd


def called(groups: Sequence[tuple[Mapping[str, Any], pd.DataFrame]]) -> list[str]:
    """A name in words for each part, no two alike: its network where the model is swept or nothing else, its settings.

    Args:
        groups: (values of the swept keys that tell it from the others, its rows, with the column network_in_words).
    """
    named = []
    for values, part in groups:
        shape = {key: value for key, value in values.items() if key in SHAPE}
        others = settings_in_words({key: value for key, value in values.items() if key not in SHAPE})
        net = str(part[NETWORK].iloc[0]) if shape or not others else ""
        named.append(("; ".join(word for word in (net, others) if word), shape))
    return told_apart(named)


def series_in_words(curves: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """A table of classifiers whose series are called in words, in the order in which they stand."""
    groups = list(parts(curves, [*unseeded(keys), SERIES]))
    names = called([({key: values[key] for key in unseeded(keys)}, part) for values, part in groups])
    of = {values[SERIES]: name for (values, _), name in zip(groups, names, strict=True)}
    return curves.assign(**{SERIES: curves[SERIES].map(of)})


def rho(found: Sequence[Headline], name: str) -> str:
    """A rank correlation among a study's headlines, to be written into a figure; "" where it has none of this name.

    Example:
        >>> rho([Headline("spearman_rho a", 0.8311, 0.5, 0.95, 9)], "spearman_rho a")
        'ρ = 0.83 [0.50, 0.95], n = 9'
    """
    number = next((one for one in found if one.name == name), None)
    if number is None or math.isnan(number.value):
        return ""
    interval = "" if math.isnan(number.low) else f" [{number.low:.2f}, {number.high:.2f}]"
    return f"ρ = {number.value:.2f}{interval}, n = {number.n}"


def with_layers(table: pd.DataFrame, model: Mapping[str, Any]) -> pd.DataFrame:
    """A table with a column `called`: in words, what its rows' layer is, or their weights."""
    names = table["layer" if "layer" in table else "weights"]
    return table.assign(called=names.map({name: parameter_in_words(name, model) for name in names.unique()}))
