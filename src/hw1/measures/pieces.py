"""Measurements in pieces: independent parts, each one self-checking file until the whole is written. No torch.

A piece is JSON: numbers come back to the bit. It is computed under a lease of its own, so that of several processes one
computes it and the others take it; what it depends on is in its key, and where a user has a key to sign with, pieces
that it does not sign are none. So a measurement goes on behind a kill, and its pieces may be computed anywhere.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hw1.files import remove_left
from hw1.inside import inside
from hw1.lease import hold
from hw1.measures.protocol import Finding, Subject
from hw1.records import FORMAT, is_own, key_file, read_record, write_record
from hw1.seeds import digest
from hw1.stages import at

CHUNK = "chunk"  # in a piece: how it was cut, the examples at a time that its bits depend on
_FILE = "piece.json"
_ROUNDS = 8  # in which pieces are made to fit each other

Piece = Mapping[str, Any]  # what JSON holds
Compute = Callable[[Iterable[str], Any], Iterator[tuple[str, Piece]]]


@runtime_checkable
class InPieces(Protocol):
    """What a measure has besides, whose finding is put together from independent pieces.

    Its `take` gives the same bits as its pieces, wherever and in whatever order these were computed.
    """

    def pieces(self, members: int) -> Sequence[str]:
        """The names of all pieces, each a file's name; those of one member in a row.

        Args:
            members: R, of the run.
        """

    def compute(self, subject: Subject, names: Iterable[str], chunk: Any) -> Iterator[tuple[str, Piece]]:
        """(name, piece) of each, one after another; a name is asked for when the piece before it has been taken.

        Args:
            subject: what is measured.
            names: of the pieces.
            chunk: what pieces that are there say as `chunk`, to whose bits these are to fit: examples at a time, or
                what else the measure has there; None where none says it. A process that has no room for it computes a
                smaller one, and the others are computed again by that.
        """

    def assemble(self, subject: Subject, pieces: Mapping[str, Piece]) -> Finding:
        """The finding of all pieces."""


def in_memory(measure: InPieces, subject: Subject) -> Finding:
    """The finding, in one go and without files: what `take` is."""
    names = measure.pieces(len(subject.end.nets))
    return measure.assemble(subject, dict(measure.compute(subject, names, None)))


def key_of_pieces(*parts: Any) -> str:
    """Hash of these parts and of torch's version, on which the bits of a piece depend besides.

    Args:
        parts: what JSON can hold.
    """
    from importlib.metadata import version

    return digest([*parts, version("torch")])


@dataclass(frozen=True)
class Pieces:
    """The pieces of one measurement on disk, until it is whole.

    Attributes:
        folder: where each has a folder of its own.
        key: hash of all that they depend on; a piece with another is computed again.
    """

    folder: Path
    key: str

    def lacking(self, names: Iterable[str]) -> list[str]:
        """Those of these names that are not there whole."""
        return [name for name in names if self.read(name) is None]

    def fill(self, names: Sequence[str], compute: Compute) -> dict[str, Piece]:
        """All of these pieces: those that are there, and the others, each written when it is computed.

        Raises:
            LostError: another process took a piece, or the folder around it, over while this one was silent.
            ValueError: pieces were computed with different chunks, again and again.
        """
        found = self._filled(names, compute)
        told = _most_said(found.values())
        for _ in range(_ROUNDS):
            others = [name for name, piece in found.items() if piece.get(CHUNK) not in (None, told)]
            if not others:
                return {name: found[name] for name in names}
            for name in others:  # their processes began at once, and chose, or had less memory
                self._file(name).unlink(missing_ok=True)
            found |= self._filled(others, functools.partial(_told, compute, told))
            # If it has no room for what it was told, all are to be as small as it made them.
            told = next((got for name in others if (got := found[name].get(CHUNK)) not in (None, told)), told)
        raise ValueError(f"chunk: got pieces of {told} examples at a time and of others, expected one number")

    def read(self, name: str) -> Piece | None:
        """A piece; None where there is none, or it is damaged, of something else, or signed by nobody here."""
        try:
            file = self._file(name)
            record = read_record(file)
            if (record["format"], record["key"], record["piece"]) != (FORMAT, self.key, name):
                return None
            if not is_own(file) and key_file().is_file():
                return None
            return dict(record["content"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remove(self) -> None:
        """Take all pieces away: the measurement is whole."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _filled(self, names: Sequence[str], compute: Compute) -> dict[str, Piece]:
        found = {name: piece for name in names if (piece := self.read(name)) is not None}
        chunk = self._chunk()

        def wanted() -> Generator[str, None, None]:
            for name in names:
                at(len(found), len(names))
                if name in found:
                    continue
                place = self._file(name).parent
                place.mkdir(parents=True, exist_ok=True)
                with hold(place) as lease:
                    if lease.succeeds:
                        remove_left(place)
                    piece = self.read(name)  # another process may have been at it
                    if piece is None:
                        yield name  # it is held until the next is asked for
                    else:
                        found[name] = piece

        with contextlib.closing(wanted()) as left:
            for name, piece in compute(left, chunk):
                write_record(self._file(name), {"format": FORMAT, "key": self.key, "piece": name, "content": piece})
                found[name] = piece
        at(len(names), len(names))
        return found

    def _chunk(self) -> Any:
        """Of the pieces that are there, some of which others may have been asked for; None where none says one."""
        there = sorted(place.name for place in self.folder.glob("[!.]*/"))
        said = (piece[CHUNK] for name in there if (piece := self.read(name)) and piece.get(CHUNK) is not None)
        return next(said, None)

    def _file(self, name: str) -> Path:
        return inside(self.folder, f"{name}/{_FILE}")


def _told(compute: Compute, chunk: Any, names: Iterable[str], _: Any) -> Iterator[tuple[str, Piece]]:
    """The pieces, cut as told whatever others say."""
    return compute(names, chunk)


def _most_said(pieces: Iterable[Piece]) -> Any:
    """How most of those that say it are cut; None where none does."""
    said = Counter(json.dumps(piece[CHUNK]) for piece in pieces if piece.get(CHUNK) is not None)
    return json.loads(said.most_common(1)[0][0]) if said else None
