"""Any torch.utils.data.Dataset of the user's."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from hw1.data.downloads import why_not
from hw1.data.identities import watching
from hw1.data.protocol import TrainTest

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("classes", "values", "tokens", "binary", "counts")
SPREAD = 256  # examples of a stream whose content is hashed


class TorchDataset:
    """Two map-style data sets of pairs (input, target), which tensors, numbers or NumPy arrays are.

    With `stream` an example is made each time it is needed; what is random about it is drawn from the run's seed, the
    epoch and its number, so that it is the same whatever the workers. Without, all are made once and kept in memory.

    Args:
        train: makes the training set; a node with `_partial_: true`.
        test: makes the test set.
        kind: of targets, see `hw1.kinds.loss_of`.
        in_shape: shape of an input; None for that of the first one.
        out_features: classes, or the length of a target; None to find it in the training targets.
        stream: whether examples are made when they are needed.

    Raises:
        ValueError: a value is out of range, or a set gives no pairs; the message begins with the argument's name.
    """

    source = "torch"

    def __init__(
        self,
        train: Any,
        test: Any,
        kind: Literal["classes", "values", "tokens", "binary", "counts"],
        in_shape: Sequence[int] | None,
        out_features: int | None,
        stream: bool,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(KINDS)}")
        self._makers: dict[str, Callable[[], Any]] = {}
        for name, made in (("train", train), ("test", test)):
            if not callable(made) and not hasattr(made, "__getitem__"):
                raise ValueError(f"{name}: got a {type(made).__name__}, expected a node whose _target_ is a Dataset")
            lazy = isinstance(made, functools.partial)
            self._makers[name] = made if lazy else functools.partial(lambda one: one, made)
        maker = train.func if isinstance(train, functools.partial) else type(train)
        self.name = str(getattr(maker, "__name__", "torch_dataset")).lower()
        self.kind, self.streamed = kind, stream
        self._in_shape, self._out_features = in_shape, out_features
        self.opened: set[str] = set()  # files, when the sets were made: a table of labels, say

    @cached_property
    def _sets(self) -> tuple[Pairs, Pairs]:
        made = []
        for name, make in self._makers.items():
            with watching() as seen:
                found = _made(name, make)
            self.opened |= seen
            if not hasattr(found, "__getitem__") or not hasattr(found, "__len__") or not len(found):
                raise ValueError(
                    f"{name}: got a {type(found).__name__}, expected a Dataset with __len__ and __getitem__"
                )
            made.append(Pairs(found, self.kind, name))
        return made[0], made[1]

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of an input."""
        return tuple(self._sets[0][0][0].shape if self._in_shape is None else self._in_shape)

    @property
    def out_features(self) -> int:
        """Number of classes, or of targets."""
        if self._out_features is not None:
            return self._out_features
        if self.kind not in ("classes", "tokens"):
            return int(self._sets[0][0][1].numel())
        raise ValueError(f"out_features: got null, expected the number of {self.kind}, which no file need be read for")

    def prepare(self) -> None:
        """Make the sets, which may download what they lack."""
        self._sets  # noqa: B018 - cached_property does the work

    def identity(self) -> str:
        """SHA-256 of all examples; of a stream of 256 to 511 of each set. A set's own `identity()` where it has one."""
        total = hashlib.sha256(self.kind.encode())
        for pairs in self._sets:
            if (own := getattr(pairs.made, "identity", None)) is not None:
                total.update(str(own()).encode())
                continue
            total.update(len(pairs).to_bytes(8, "big"))
            stride = max(1, len(pairs) // SPREAD) if self.streamed else 1
            for number in range(0, len(pairs), stride):
                for part in pairs.seeded(number):
                    total.update(f"{part.dtype} {list(part.shape)}".encode() + part.numpy().tobytes())
        return total.hexdigest()

    def load(self) -> TrainTest:
        """All examples."""
        import torch

        (train_x, train_y), (test_x, test_y) = (
            tuple(map(torch.stack, zip(*(pairs.seeded(number) for number in range(len(pairs))), strict=True)))
            for pairs in self._sets
        )
        return TrainTest(train_x, train_y, test_x, test_y)

    def datasets(self) -> tuple[Pairs, Pairs]:
        """The sets themselves."""
        return self._sets


class Pairs:
    """A data set whose pairs are tensors, in the types of a kind of targets.

    Args:
        made: gives (input, target) by number.
        kind: of targets.
        name: of the argument that made it, for messages.
    """

    def __init__(self, made: Any, kind: str, name: str) -> None:
        self.made, self._kind, self._name = made, kind, name

    def __len__(self) -> int:
        return len(self.made)

    @property
    def targets(self) -> Any:
        """What the set calls its targets."""
        return getattr(self.made, "targets", None)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        import torch

        pair = self.made[number]
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            got = f"a {type(pair).__name__}" + (f" of {len(pair)}" if isinstance(pair, tuple | list | dict) else "")
            raise ValueError(f"{self._name}: got {got} for an example, expected a pair (input, target)")
        try:
            x, y = (torch.as_tensor(part) for part in pair)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{self._name}: got an example of {' and '.join(type(part).__name__ for part in pair)}, expected "
                "tensors, arrays or numbers: convert images by its `transform`"
            ) from error
        if self._kind == "values":
            return _floating(x), y.float().reshape(-1) if y.ndim == 0 else y.float()
        return _floating(x), y.long() if self._kind != "binary" else y

    def seeded(self, number: int) -> tuple[Tensor, Tensor]:
        """An example as evaluations see it."""
        from hw1.data.randomness import seeded

        with seeded(number):
            return self[number]


def _made(name: str, make: Callable[[], Any]) -> Any:
    """The set; where nothing may be downloaded one that is told `download=True` takes what is there."""
    reason = why_not()
    if not reason or not isinstance(make, functools.partial) or make.keywords.get("download") is not True:
        return make()
    try:
        return functools.partial(make, download=False)()
    except (RuntimeError, OSError) as error:  # torchvision's own word for it is a RuntimeError
        raise FileNotFoundError(f"{name}: {error}; {reason}") from error


def _floating(x: Tensor) -> Tensor:
    """Numbers as float32; bytes in [0, 1]; other integers, as tokens, stay."""
    import torch

    if x.dtype == torch.uint8:
        return x.float().div_(255)
    return x.float() if x.is_floating_point() else x
