"""Where the paths of the weights end, in words. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hw1.studies.answers import Answer, percent, ranged, settled, verdict, where_in_words
from hw1.studies.headlines import headline, parts
from hw1.studies.path_distances import FURTHEST, between

if TYPE_CHECKING:
    import pandas as pd

WHOLE = "all"  # the weights of a table's row, where they are no single layer's
ALIKE = 0.05  # within so much of 1 a ratio of distances is called the same


def paths_in_words(tables: Mapping[str, pd.DataFrame], own: Sequence[str]) -> Answer:
    """The answer of the study of trajectories.

    Args:
        tables: `paths`.
        own: the swept keys but the seed.
    """
    sentences = []
    paths = sorted(parts(tables["paths"], ["weights", *own]), key=lambda one: one[0]["weights"] != WHOLE)
    for values, part in paths:
        values.pop("weights")
        start = ", ".join(word for word in (where_in_words(values), f"by {part['called'].iloc[0]}") if word)
        start = f"{start[:1].upper()}{start[1:]}"
        if len(part) >= 3:
            found = between("ends", list(part["ends_over_independent"]), 0, FURTHEST)
            text = verdict(found, 1, "they move further apart than that", "they end nearer than that", "path")
            if found.low > 1 - ALIKE and found.high < 1 + ALIKE:
                text = f"as far as that, to {percent(ALIKE)}: each start goes its own way"
            if (part["to_other_starts"] > 0).all():
                near = between("near", list(part["to_other_ends"] / part["to_other_starts"]))
                closer = {1: "no nearer to each other than they began", -1: "nearer than they began"}
                ends = closer.get(settled(near, 1), f"as near as they began, or not: undecided, n = {near.n}")
                times = ranged(near, "times", of="path")
                sentences.append(f"{start}, different starts end {ends}: {times} as far apart.")
                start = "Against what independent directions would give"
            else:
                start = f"{start}, from one start, against what independent directions would give"
            times = ranged(found, "times", of="path")
            sentences.append(f"{start}, their ends are {times} as far apart: {text}.")
        else:
            sentences.append(f"{start}, too few starts to say whether they end in the same place: it takes three.")
        net = headline("net", list(part["net"]), least=0)
        sentences.append(f"A path ends {ranged(net, of='path')} from its start.")
    captions = {
        "trajectory": "The paths on the two principal axes that all of them have in common; a dot is a snapshot, "
        "and what the axes explain of the variance stands at them. Distances off this plane are not seen.",
        "filters": "The filters as the first input channel sees them, at the smallest gradient and at the end.",
    }
    columns = [*own, "seed", "weights", "length", "net", "to_other_starts", "to_other_ends"]
    return Answer(sentences, captions, {"paths": columns})
