"""Measures within a stated memory: what is bounded, what stays the same, and that the record says so."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load
from subjects import subject_of

from hw1 import machine, stages
from hw1.data import Digits
from hw1.measures import Sharpness, Spectrum, needs, room
from hw1.measures.pieces import Pieces
from hw1.measures.spectrum import DENSITY
from hw1.models import Mlp
from hw1.risk import fitting, memory

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SHARPNESS = {"examples": 64, "rho": 0.004, "trace_products": 30, "seed": None}
SPECTRUM = {"examples": 64, "probes": 2, "steps": 20, "seed": None}
COUNT = {"room_bytes", "graph_bytes", "graph_kept", "chunk_size", "chunk_size_wanted", "vectors", "vectors_wanted"}


def taken(measure, monkeypatch, bytes_of_room=None):
    torch.manual_seed(0)
    subject = subject_of([Mlp((1, 8, 8), 10, hidden=[16])], Digits(), train_size=200)
    with monkeypatch.context() as patch:
        if bytes_of_room is not None:
            patch.setattr(room, "room", lambda device: bytes_of_room)
        return measure.take(subject, {})


def test_sharpness_with_little_room_is_that_with_much(monkeypatch):
    usual = taken(Sharpness(**SHARPNESS), monkeypatch)
    assert room.MEMORY not in usual.files
    found = taken(Sharpness(**SHARPNESS), monkeypatch, 60_000)
    ((said,), (plain,)) = (json.loads(found.files[room.MEMORY]), json.loads(usual.files["precision.json"]))
    assert set(said) == COUNT and plain is not None
    assert not said["graph_kept"] and said["chunk_size"] < 64 and said["vectors"] == 3 < said["vectors_wanted"]
    for name in ("sharpness/keskar_1e-3", "sharpness/adaptive", "sharpness/largest_eigenvalue"):
        assert found.values[name] == pytest.approx(usual.values[name], rel=1e-2), name
    (one,), (error,) = (found.values[f"sharpness/trace{end}"] for end in ("", "_standard_error"))
    (other,), (before,) = (usual.values[f"sharpness/trace{end}"] for end in ("", "_standard_error"))
    assert abs(one - other) < 4 * (error + before)


def test_a_spectrum_with_few_vectors_has_the_columns_of_one_with_all(monkeypatch):
    usual, found = (taken(Spectrum(**SPECTRUM), monkeypatch, space) for space in (None, 120_000))
    (said,) = json.loads(found.files[room.MEMORY])
    assert 2 <= said["vectors"] < said["vectors_wanted"] == 20
    for name in ("spectrum/largest", "spectrum/mean", "spectrum/mean_standard_error"):
        assert found.values[name] == pytest.approx(usual.values[name], rel=1e-4), name
    assert load(found.files[DENSITY])["weights"].sum(-1).flatten().tolist() == pytest.approx([1.0, 1.0])


def content(finding):
    """What depends on how it was cut, to the bit; and what is said of that, but for the room of one process."""
    files = dict(finding.files)
    said = json.loads(files.pop(room.MEMORY, "null"))
    bounded = [{name: row[name] for name in ("chunk_size", "chunk_size_wanted", "vectors")} for row in said or []]
    return finding.values, {name: hashlib.sha256(file).hexdigest() for name, file in files.items()}, bounded


MEASURES = {"sharpness": Sharpness(**SHARPNESS), "spectrum": Spectrum(**SPECTRUM | {"probes": 4})}


ROOMS = ("small first", "usual first", "small last", "each its own")
PAIRS = [(rooms, name) for rooms in ROOMS for name in MEASURES]


@pytest.mark.parametrize(
    ("rooms", "name"), [PAIRS[-1], *(pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS[:-1])]
)
def test_pieces_of_processes_with_unequal_memory_are_made_equal(rooms, name, tmp_path, monkeypatch):
    """Whoever has room for how the others are cut takes that over; else what is larger is computed again."""
    measure, small, less = MEASURES[name], 120_000, 60_000
    torch.manual_seed(0)
    subject = subject_of([Mlp((1, 8, 8), 10, hidden=[16])], Digits(), train_size=200)
    names = measure.pieces(1)
    pieces = Pieces(tmp_path / ".x.pieces", "k")

    def fill(few, space, alone=False):
        with monkeypatch.context() as patch:
            patch.setattr(room, "room", lambda device: space)
            if alone:  # as if it had begun before the others had written anything
                patch.setattr(Pieces, "_chunk", lambda self: None)
            return pieces.fill(few, lambda wanted, chunk: measure.compute(subject, wanted, chunk))

    usual = float(room.MOST)
    order = {
        "small first": [(names[:1], small), (names, usual)],
        "usual first": [(names[:3], usual), (names, small)],
        "small last": [(names[:3], usual), (names[3:], small), (names, usual)],
        "each its own": [(names[:1], usual), (names[1:2], small), (names[2:], less), (names, small)],
    }[rooms]
    for few, space in order[:-1]:
        fill(few, space, alone=True)
    found = fill(*order[-1])
    assert len({json.dumps(piece["chunk"]) for piece in found.values()}) == 1
    finding = measure.assemble(subject, found)
    expected = {"small first": small, "usual first": small, "small last": usual, "each its own": less}[rooms]
    with monkeypatch.context() as patch:
        patch.setattr(room, "room", lambda device: expected)
        assert content(finding) == content(measure.take(subject, {}))


def test_the_room_is_what_is_free_or_was_given(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 2.0**33)
    assert room.room(CPU) == room.MOST
    for free, expected in ((2.0**30, 2**30), (2.0**31 - 1, 2**30), (0.9 * 2.0**30, 2**29), (0.0, room.LEAST)):
        monkeypatch.setattr(memory, "free_memory", lambda: free)  # noqa: B023 - called before the next
        assert room.room(CPU) == expected
    machine.allot(4 * 2.0**30)
    try:
        assert room.room(CPU) == 3.5 * 2**30
        machine.allot(2.0**20)
        assert room.room(CPU) == room.LEAST
        monkeypatch.setattr(memory, "free_on", {GPU: 2.0**30}.get)  # what a worker was given is no GPU's
        assert room.room(GPU) == 2**30
    finally:
        machine.allot(None)


def test_what_takes_long_says_so_before_it_begins(monkeypatch, capsys):
    slow = fitting.Fit(2.0**31, 3 * 2.0**30, False, True, 64, 256, 10.0, 3.0)
    own = room.Taking(slow, 2.0**31, 44_000_000)
    with stages.stage("seed=1: spectrum"):
        room.say_long(own, 800, 0, 2, "fewer measures.spectrum.probes")
        room.say_long(own, 3, 0, 1, "nothing")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("seed=1: spectrum: about 4 h 26 min of 2 members (1,600 products with the Hessian of 10 s")
    assert "without 3.0 GiB of graph kept" in line and line.endswith("fewer measures.spectrum.probes makes it shorter")


def test_a_large_network_with_curvature_needs_more_than_a_small_one():
    small, large = needs.need(14_718, 20, True), needs.need(11_181_642, 1, True)
    assert small == machine.PER_WORKER < needs.need(11_181_642, 1, False) < large
    assert large > machine.PER_WORKER + room.MOST and needs.values_need(571) == machine.PER_WORKER
