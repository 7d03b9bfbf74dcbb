"""Forms of batches as people bring them, by name: all from the same examples."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from expected import Refused, Warned, at_once
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

SIZES = (5, 4, 2)  # ragged: 11 examples

Pair = collections.namedtuple("Pair", ["inputs", "targets"])


@dataclass
class Labelled:
    """A user's own batch."""

    inputs: Any
    targets: Tensor


class Bare:
    """A user's own batch that is no structure that torch knows; as torch_geometric's."""

    def __init__(self, inputs: Any, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets


class MappingLike(collections.UserDict):
    """As HuggingFace's BatchEncoding and curvlinops' tests: no dict, and like one."""


@dataclass(frozen=True)
class Form:
    """(inputs, targets) of all examples -> batches, and how a batch is read where it is no pair."""

    make: Callable[[Any, Tensor], Any]
    unpack: Callable[[Any], tuple[Any, Tensor]] | None = None  # of batch_loss; None: pairs
    kept: int | None = None  # the first so many examples alone
    only: str | None = None  # inputs that are one tensor of floating point ("tensor"), or not
    expect: Refused | Warned | None = None


def walk(tree: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same structure with every tensor changed."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return type(tree)((name, walk(part, change)) for name, part in tree.items())
    return tuple(walk(part, change) for part in tree)


def rows(tree: Any, start: int, stop: int) -> Any:
    return walk(tree, lambda tensor: tensor[start:stop])


def length(tree: Any) -> int:
    return (
        len(tree) if isinstance(tree, Tensor) else length(next(iter(tree.values() if isinstance(tree, dict) else tree)))
    )


def split(x: Any, y: Tensor, sizes: tuple[int, ...] = SIZES) -> list[tuple[Any, Tensor]]:
    """Batches of these sizes, the last as long as is left."""
    pairs, start = [], 0
    for size in sizes:
        pairs.append((rows(x, start, start + size), y[start : start + size]))
        start += size
    return pairs


class Examples(Dataset):  # type: ignore[type-arg]
    """One example at an index, as a user's own data set."""

    def __init__(self, x: Any, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> Any:
        return walk(self.x, lambda tensor: tensor[index]), self.y[index]


class Stream(IterableDataset):  # type: ignore[type-arg]
    """Examples that can only be read through."""

    def __init__(self, x: Any, y: Tensor) -> None:
        self.all = Examples(x, y)

    def __iter__(self) -> Iterator[Any]:
        return (self.all[index] for index in range(len(self.all)))


class Again:
    """Whatever can be iterated again."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def floats(change: Callable[[Tensor], Any]) -> Callable[[Any, Tensor], Any]:
    """A list of pairs whose inputs of floating point are changed."""
    return lambda x, y: [(walk(a, lambda t: change(t) if t.is_floating_point() else t), b) for a, b in split(x, y)]


def strided(tensor: Tensor) -> Tensor:
    """The same numbers, every second one in memory."""
    wide = torch.stack([tensor, torch.zeros_like(tensor)], -1)
    return wide[..., 0]


def poisoned(tensor: Tensor) -> Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[-1] = torch.nan
    return tensor


def in_inference(x: Any, y: Tensor) -> Any:
    with torch.inference_mode():
        return [(walk(a, torch.clone), b.clone()) for a, b in split(x, y)]


def dictionaries(kind: Callable[[dict[str, Any]], Any]) -> Callable[[Any, Tensor], Any]:
    return lambda x, y: [kind({"x": a, "y": b}) for a, b in split(x, y)]


def shuffling(x: Any, y: Tensor, **options: Any) -> Any:
    return DataLoader(Examples(x, y), batch_size=4, shuffle=True, **options)


def flaky(x: Any, y: Tensor) -> Any:
    """Random augmentation: other inputs on every pass."""

    class Augmented(Examples):
        def __getitem__(self, index: int) -> Any:
            inputs, target = super().__getitem__(index)
            return walk(inputs, lambda t: t + torch.randn_like(t) if t.is_floating_point() else t), target

    return DataLoader(Augmented(x, y), batch_size=4)


def empty_last(x: Any, y: Tensor) -> Any:
    return [*split(x, y), (rows(x, 0, 0), y[:0])]


READ_XY = lambda batch: (batch["x"], batch["y"])  # noqa: E731

FORMS: dict[str, Form] = {
    "list": Form(lambda x, y: split(x, y)),
    "tuple": Form(lambda x, y: tuple(split(x, y))),
    "lists": Form(lambda x, y: [list(pair) for pair in split(x, y)]),
    "again": Form(lambda x, y: Again(split(x, y))),
    "one": Form(lambda x, y: [(x, y)]),
    "singles": Form(lambda x, y: split(x, y, (1,) * len(y))),
    "one_of_one": Form(lambda x, y: split(x, y, (1,)), kept=1),
    "loader": Form(lambda x, y: DataLoader(Examples(x, y), batch_size=4)),
    "shuffled": Form(shuffling),
    "own_generator": Form(lambda x, y: shuffling(x, y, generator=torch.Generator().manual_seed(5))),
    "drop_last": Form(lambda x, y: DataLoader(Examples(x, y), batch_size=4, drop_last=True), kept=8),
    "stream": Form(lambda x, y: DataLoader(Stream(x, y), batch_size=3)),
    "named_pair": Form(lambda x, y: [Pair(*pair) for pair in split(x, y)]),
    "dict": Form(dictionaries(dict), READ_XY),
    "user_dict": Form(dictionaries(MappingLike), READ_XY),
    "ordered_dict": Form(dictionaries(collections.OrderedDict), READ_XY),
    "nested": Form(
        lambda x, y: [{"in": {"x": a, "name": "a"}, "out": (b, None, 3)} for a, b in split(x, y)],
        lambda batch: (batch["in"]["x"], batch["out"][0]),
    ),
    "triple": Form(lambda x, y: [(a, b, torch.arange(len(b))) for a, b in split(x, y)], lambda batch: batch[:2]),
    "dict_loader": Form(
        lambda x, y: DataLoader(
            Examples(x, y), batch_size=4, collate_fn=lambda many: MappingLike(
                zip("xy", torch.utils.data.default_collate(many), strict=True))
        ), READ_XY,
    ),
    "one_tuple": Form(lambda x, y: [((a,), b) for a, b in split(x, y)], only="tensor"),
    "strided": Form(floats(strided)),
    "double": Form(floats(torch.Tensor.double)),
    "half": Form(floats(lambda t: t.half()), only="rounded"),
    "requires_grad": Form(floats(lambda t: t.clone().requires_grad_())),
    "inference": Form(in_inference),
    "masks": Form(lambda x, y: [(a, b, torch.ones(len(b), dtype=torch.bool)) for a, b in split(x, y)], lambda b: b[:2]),
    "dataclass": Form(
        lambda x, y: [Labelled(*pair) for pair in split(x, y)], lambda batch: (batch.inputs, batch.targets)
    ),
    "bare": Form(lambda x, y: [Bare(*pair) for pair in split(x, y)], lambda batch: (batch.inputs, batch.targets),
                 expect=at_once("batches|count", r"Bare", or_right=True)),
    "texts": Form(  # a list as long as the batch, which cannot be taken apart
        lambda x, y: [{"x": a, "y": b, "names": ["a"] * len(b)} for a, b in split(x, y)], READ_XY,
        expect=at_once("count|batches", r"count=", or_right=True),
    ),
    # --- what is noticed
    "numpy": Form(
        lambda x, y: [(walk(a, lambda t: t.numpy()), b.numpy()) for a, b in split(x, y)],
        expect=at_once("batches", r"torch\.from_numpy"),
    ),
    "numpy_inputs": Form(
        lambda x, y: [(walk(a, lambda t: t.numpy()), b) for a, b in split(x, y)],
        expect=at_once("batches", r"torch\.from_numpy"),
    ),
    "numbers": Form(
        lambda x, y: [(a, b.tolist()) for a, b in split(x, y)],
        expect=at_once("batches", r"expected"),
    ),
    "generator": Form(lambda x, y: (pair for pair in split(x, y)), expect=at_once("batches", r"list\(")),
    "iterator": Form(lambda x, y: iter(split(x, y)), expect=at_once("batches", r"list\(")),
    "nothing": Form(lambda x, y: [], expect=at_once("batches", r"no examples")),
    "none": Form(lambda x, y: None, expect=at_once("batches", r"got None")),
    "a_number": Form(lambda x, y: 7, expect=at_once("batches", r"got an? int")),
    "one_pair": Form(lambda x, y: (x, y), expect=at_once("batches", r"\[\(|list|pair|inputs, targets")),
    "dataset": Form(lambda x, y: Examples(x, y), expect=at_once("batches", r"DataLoader|batch|expected")),
    "nan": Form(floats(poisoned), only="floats", expect=at_once("batches|loss", r"finite|NaN")),
    "nan_at_the_end": Form(
        lambda x, y: [*split(x, y)[:-1], (walk(rows(x, 9, 11), poisoned), y[9:])], only="floats",
        expect=at_once("batches|loss", r"finite|NaN"),
    ),
    "nan_loader": Form(
        lambda x, y: DataLoader(Examples(walk(x, poisoned), y), batch_size=4), only="floats",
        expect=at_once("batches|loss", r"finite|NaN"),
    ),
    "empty_batch": Form(empty_last, expect=at_once("batches", r"> 0|empty|0 inputs", or_right=True)),
    "unequal": Form(
        lambda x, y: [(a, b[:-1]) for a, b in split(x, y)],
        expect=at_once("batches", r"as many|inputs and"),
    ),
    "augmented": Form(flaky, only="floats", expect=Refused("construction|value", "batches", r"other examples")),
    "shuffled_drop_last": Form(
        lambda x, y: shuffling(x, y, drop_last=True), expect=Refused("construction|value", "batches", r"drop_last"),
    ),
    "dict_without_batch_loss": Form(dictionaries(dict), expect=at_once("batches", r"batch_loss")),
    "triple_without_batch_loss": Form(
        lambda x, y: [(a, b, b) for a, b in split(x, y)], expect=at_once("batches", r"batch_loss")
    ),
}  # fmt: skip
