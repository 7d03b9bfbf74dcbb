"""Long computations of this room: how far they are, and a file from which they go on where they were stopped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hw1.curvature.operators import Operator
from hw1.files import replacing
from hw1.stored_json import from_json
from hw1.tensor_files import refuse_claims

FORMAT = "1"
ROUNDING = 1000.0  # roundings by which the products of one operator may differ, relative to their norm
KINDS = {int: "an integer of at least 0", float: "a number", bool: "true or false", list: "a list of numbers"}
State = tuple[dict[str, Tensor], dict[str, Any]]  # tensors, and what JSON holds


@dataclass(frozen=True)
class Progress:
    """How far a computation is.

    Attributes:
        products: operator-vector products done, with those before a resumption.
        most: products at most.
        residual: largest residual of the wanted pairs over max|lambda|, when they were last looked at; NaN before, and
            for a density.
    """

    products: int
    most: int
    residual: float


@dataclass(frozen=True)
class Checkpoint:
    """Where a computation leaves what it has, and how often.

    Attributes:
        path: of the file; it is whole or absent, and goes when the computation has ended.
        seconds: between two writings, at least. The file is as large as the basis: P numbers a product.
        products: products between two writings; None leaves it to the seconds.
    """

    path: Path | str
    seconds: float = 600.0
    products: int | None = None

    def __post_init__(self) -> None:
        if not self.seconds >= 0:
            raise ValueError(f"seconds: got {self.seconds}, expected at least 0: 0 writes after every product")
        if self.products is not None and self.products < 1:
            raise ValueError(f"products: got {self.products}, expected at least 1, or None: None leaves it to seconds")


class Keeper:
    """Reads and writes the checkpoint of one computation; without one it does nothing.

    Args:
        checkpoint: its settings, or a path alone.
        kind: what is computed.
        op: the operator; it is told from others by one product.
        settings: what the computation depends on, besides.
        generator: as the computation begins with it.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | Path | str | None,
        kind: str,
        op: Operator,
        settings: Mapping[str, Any],
        generator: torch.Generator,
    ) -> None:
        if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
            checkpoint = Checkpoint(checkpoint)
        self._checkpoint = checkpoint
        if checkpoint is None:
            return
        self._path = Path(checkpoint.path)
        self._op = op
        self._generator = generator
        self._began_with = generator.get_state()
        self._told: dict[str, Any] = {
            "kind": kind,
            "size": op.size,
            "dtype": str(op.dtype),
            **settings,
            "generator": digest(self._began_with),
        }
        self._product = self._probe().double().cpu()
        self._time = time.monotonic()
        self._written = 0  # products when it was last written

    def _probe(self) -> Tensor:
        """The operator's product with a vector that is always the same."""
        vector = torch.randn(self._op.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        return self._op.matvec(vector.to(self._op.device, self._op.dtype))

    def load(self) -> State | None:
        """What the file holds, with the generator's state in `tensors`; None without one.

        Raises:
            ValueError: the file is none of these, or belongs to another operator or other settings.
        """
        if self._checkpoint is None or not self._path.exists():
            return None
        try:
            refuse_claims(self._path)
            with safe_open(self._path, "pt") as opened:
                said = opened.metadata() or {}
                names = opened.keys()
                tensors = {name: opened.get_tensor(name) for name in names}
            told, numbers = dict(from_json(said["told"])), dict(from_json(said["numbers"]))
            product, state = tensors.pop("product"), tensors["generator"]
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"checkpoint: got {self._path}, which is none ({error}), expected a checkpoint: delete it"
            ) from error
        if said.get("format") != FORMAT:
            told = {"format": said.get("format")}
        for name, expected in self._told.items():
            if told.get(name) != expected:
                raise ValueError(
                    f"checkpoint: got {self._path} of {name} {told.get(name)}, expected {expected}: give the settings "
                    "that it was begun with, or delete it"
                )
        same = product.shape == self._product.shape
        off = (product - self._product).norm().item() if same else math.inf
        allowed = ROUNDING * torch.finfo(self._op.dtype).eps * self._product.norm().item()
        if not off <= allowed:
            raise ValueError(
                f"checkpoint: got {self._path} of another operator (a product is off by {off:.1e}), expected this one: "
                "give the theta and data that it was begun with, or delete it"
            )
        try:
            torch.Generator(self._generator.device).set_state(state)
        except (RuntimeError, TypeError) as error:
            raise _unlike("generator", _form(state), "one of its states") from error
        self._written = numbers.get("products", 0)
        return tensors, numbers

    def after_product(self, products: int, state: Callable[[], State]) -> None:
        """Write if it is time."""
        if self._checkpoint is None:
            return
        every = self._checkpoint.products
        if (every is not None and products - self._written >= every) or (
            time.monotonic() - self._time >= self._checkpoint.seconds
        ):
            self._write(state())

    @contextlib.contextmanager
    def leaving(self, state: Callable[[], State | None]) -> Iterator[None]:
        """Write what there is if the block is left by an exception, Ctrl-C too; remove the file if it ends.

        The generator is then as it was found, so that the same call goes on.

        Args:
            state: what is to be kept; None while it is being rewritten, and the older file stays.
        """
        try:
            yield
        except BaseException:
            if self._checkpoint is not None:
                if (last := state()) is not None and last[1]["products"] > 0:
                    self._write(last)
                self._generator.set_state(self._began_with)
            raise
        if self._checkpoint is not None:
            self._path.unlink(missing_ok=True)

    def _write(self, state: State) -> None:
        tensors, numbers = state
        kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        kept["product"] = self._product
        said = {"format": FORMAT, "told": json.dumps(self._told), "numbers": json.dumps(numbers)}
        with replacing(self._path) as temporary:
            save_file(kept, temporary, said)
        self._time, self._written = time.monotonic(), numbers["products"]


def restore(own: object, names: Iterable[str], numbers: Mapping[str, Any]) -> None:
    """Set these attributes to what a file says, each of the type that it has; the file may be a stranger's.

    Raises:
        ValueError: one is missing or of another type, a count is negative, or a list holds more than numbers.
    """
    for name in names:
        value, kind = numbers.get(name), type(getattr(own, name))
        listed = isinstance(value, list) and not all(type(entry) is float for entry in value)
        if type(value) is not kind or listed or (type(value) is int and value < 0):
            raise _unlike(name, repr(value)[:40], KINDS[kind])
        setattr(own, name, value)


def expect(name: str, right: bool, got: object, expected: object) -> None:
    """Refuse what does not fit the rest of the computation.

    Raises:
        ValueError: it is not right.
    """
    if not right:
        raise _unlike(name, got, expected)


def tensor_of(tensors: Mapping[str, Tensor], name: str, *shape: int) -> Tensor:
    """The tensor of this name and shape, of floating point.

    Raises:
        ValueError: it is missing, or of another shape or dtype.
    """
    found = tensors.get(name)
    if found is None or found.shape != shape or not found.is_floating_point():
        raise _unlike(name, None if found is None else _form(found), f"floating point of {list(shape)}")
    return found


def _form(tensor: Tensor) -> str:
    return f"{tensor.dtype} of {list(tensor.shape)}"


def _unlike(name: str, got: object, expected: object) -> ValueError:
    return ValueError(f"checkpoint: got {name} {got}, expected {expected}: delete the file")


def digest(tensor: Tensor) -> str:
    """Hex SHA-256 of a tensor's bytes, the first 16 digits."""
    plain = tensor.detach().cpu().contiguous()
    return hashlib.sha256(plain.view(torch.uint8).numpy().tobytes()).hexdigest()[:16]
