"""One case in one process and in several: by how much parameters and metrics differ."""

import contextlib
import math
import os
import threading
from dataclasses import dataclass

from composed import settings, trained
from hw1.settings.processes import NODES
from hw1.training.attending import attend
from hw1.training.network import meeting_place

from .cases import COMMON


@dataclass(frozen=True)
class Difference:
    """Of the run of several processes from that of one.

    Attributes:
        steps: optimizer steps that both took.
        parameters: the largest absolute difference of a final weight.
        metrics: of a metric of any step or epoch, or of the result; relative where it is above 1.
        values: numbers compared, besides weights.
    """

    steps: int
    parameters: float
    metrics: float
    values: int


def words_of(case, own=()):
    """The words of a case's command."""
    asked = [*case.words.split(" "), *own] if case.words else list(own)
    groups = {word.partition("=")[0] for word in asked}
    removed = {word[1:] for word in asked if word.startswith("~")}
    common = [word for word in COMMON if word.partition("=")[0] not in groups | removed]
    return [*common, *(word for word in asked if not word.startswith("~"))]


def compare(case, root):
    """Train a case both ways below the folder `root`."""
    alone = trained(settings("trainer=cpu", *words_of(case)), root)
    with machines(case.machines - 1, root / "nodes"):
        own = [f"trainer.devices={case.processes // case.machines}", f"trainer.num_nodes={case.machines}"]
        several = trained(settings("trainer=ddp", *own, *words_of(case)), root)
    assert several.result["steps"] == alone.result["steps"]
    one, two = alone.history(), several.history()
    assert list(one.columns) == list(two.columns)
    assert len(one) == len(two)
    pairs = [(a, b) for name in one.columns for a, b in zip(one[name], two[name], strict=True)]
    assert alone.metrics().keys() == several.metrics().keys()
    pairs += [(value, several.metrics()[name]) for name, value in alone.metrics().items()]
    far = [_far(a, b) for a, b in pairs if not (_nan(a) and _nan(b))]
    return Difference(
        steps=alone.result["steps"],
        parameters=(alone.theta() - several.theta()).abs().max().item(),
        metrics=max(far),
        values=len(far),
    )


@contextlib.contextmanager
def machines(number, place):
    """Inside, runs find so many other machines, which are threads of this process, in the folder `place`."""
    before, ended = os.environ.get(NODES), threading.Event()
    os.environ[NODES] = str(place)
    threads = [
        threading.Thread(target=attend, args=(meeting_place(), ended.is_set, lambda line: None)) for _ in range(number)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        os.environ.pop(NODES) if before is None else os.environ.update({NODES: before})


def _nan(value):
    return isinstance(value, float) and math.isnan(value)


def _far(a, b):
    distance = abs(a - b) / max(1.0, abs(a))
    return math.inf if math.isnan(distance) else distance
