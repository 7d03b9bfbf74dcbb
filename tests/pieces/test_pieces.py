"""Measurements in pieces: the bits of one process, whoever computes which, and what a kill leaves is not lost."""

import json
import shutil
from types import SimpleNamespace

import pytest

from hw1.files import file_digest
from hw1.lease import hold
from hw1.measures import spectrum
from hw1.measures.cache import Cache
from hw1.measures.pieces import Pieces
from hw1.measures.take import lacking_pieces, pieces_of, take, take_pieces
from hw1.records import make_key, read_record, write_record
from hw1.runs import Ask, Run, Sweep, read_measured
from hw1.settings import ConfigError
from hw1.studies import FlatnessInterp, between
from hw1.studies.parts import keep_parts, lacking_parts
from hydra_plugins.hw1_sweeper import piecing
from hydra_plugins.hw1_sweeper.piecing import _shares, jobs_asked
from hydra_plugins.hw1_sweeper.plan import Job
from made_runs import make_members, make_run, make_sweep

SPECTRUM = {"_target_": "hw1.measures.Spectrum", "examples": 60, "probes": 3, "steps": 5, "seed": None}
SHARPNESS = {"_target_": "hw1.measures.Sharpness", "examples": 40, "rho": 0.004, "trace_products": 6, "seed": None}
ASKS = [Ask("spectrum", SPECTRUM), Ask("sharpness", SHARPNESS)]
PIECES = 2 * (3 + 4)  # of two members


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(a run of two members, {file: content} of what was measured of it in one go)."""
    assert make_key() == ""
    root = tmp_path_factory.mktemp("made")
    folder = make_members(root, [make_run(root, seed=seed) for seed in (0, 1)])
    take(Run(folder), ASKS)
    return folder, found(folder)


def found(folder):
    """What was measured, without the seconds that it took."""
    contents = {}
    for ask in ASKS:
        measured = read_measured(ask.file(folder))
        assert measured is not None and measured.error == ""
        contents[ask.name] = (measured.values, measured.files)  # hashes of the files that stand beside
    return contents


@pytest.fixture
def run(made, tmp_path):
    """A copy of the run of which nothing was measured yet."""
    folder = tmp_path / "hand" / "runs" / made[0].name
    shutil.copytree(made[0], folder)
    shutil.rmtree(folder / "measures")
    return Run(folder)


@pytest.fixture
def computed(monkeypatch):
    """Names of the probes that are computed, as they are."""
    names = []
    compute = spectrum.Spectrum.compute

    def counting(self, subject, wanted, chunk):
        for name, piece in compute(self, subject, wanted, chunk):
            names.append(name)
            yield name, piece

    monkeypatch.setattr(spectrum.Spectrum, "compute", counting)
    return names


def left(run):
    return sorted(path.name for path in (run.path / "measures").glob(".*"))


def test_pieces_in_any_order_give_the_bits_of_one_go(run, made):
    pieces = lacking_pieces(run, ASKS)
    assert len(pieces) == PIECES and len(set(pieces)) == PIECES
    for wanted in (pieces[::-2], pieces[::2][::-1]):
        take_pieces(run, ASKS, wanted)
    assert lacking_pieces(run, ASKS) == [] and len(left(run)) == 2
    take(run, ASKS)
    assert found(run.path) == made[1]
    assert left(run) == [] and lacking_pieces(run, ASKS) == []


def test_a_measure_that_was_killed_goes_on_from_its_pieces(run, made, computed, monkeypatch):
    density = spectrum.Spectrum.compute

    def killed(self, subject, wanted, chunk):
        for name, piece in density(self, subject, wanted, chunk):
            yield name, piece
            if len(computed) == 4:  # the next is asked for, and under way
                raise KeyboardInterrupt

    monkeypatch.setattr(spectrum.Spectrum, "compute", killed)
    with pytest.raises(KeyboardInterrupt):
        take(run, ASKS[:1])
    monkeypatch.setattr(spectrum.Spectrum, "compute", density)
    assert len(lacking_pieces(run, ASKS[:1])) == 2
    take(run, ASKS[:1])
    assert computed == all_names(run)  # each once
    assert found_of(run, "spectrum") == made[1]["spectrum"]


def found_of(run, name):
    (ask,) = (ask for ask in ASKS if ask.name == name)
    measured = read_measured(ask.file(run.path))
    return measured.values, measured.files


def flipped(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file):
    file.write_bytes(file.read_bytes()[:-40])


def of_another_chunk(file):
    record = read_record(file)
    write_record(file, record | {"content": record["content"] | {"chunk": 7}})


def of_other_weights(file):
    write_record(file, read_record(file) | {"key": "0"})


def by_somebody_else(file):
    file.write_text(
        json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "signature"})
    )


def test_pieces_that_are_not_what_was_written_are_computed_again(run, made, computed):
    take_pieces(run, ASKS[:1], lacking_pieces(run, ASKS[:1]))
    harms = [flipped, cut, of_another_chunk, of_other_weights, by_somebody_else]
    computed.clear()
    for name, harm in zip(all_names(run)[1:], harms, strict=True):
        harm(pieces_of(run, ASKS[0]).folder / name / "piece.json")
    take(run, ASKS[:1])
    assert sorted(computed) == all_names(run)[1:]
    assert found_of(run, "spectrum") == made[1]["spectrum"]


def all_names(run):
    """Of all pieces of the spectrum, whether they are there or not."""
    return [f"member={member}_probe={probe}" for member in range(run.count) for probe in range(3)]


def test_a_piece_that_another_process_computes_is_waited_for(run, computed, monkeypatch):
    pieces = pieces_of(run, ASKS[0])
    take_pieces(run, ASKS[:1], lacking_pieces(run, ASKS[:1])[:1])
    kept = (pieces.folder / "member=0_probe=0" / "piece.json").read_bytes()
    pieces.remove()
    computed.clear()

    def other(place):  # ends with the piece while it is waited for
        if place.name == "member=0_probe=0":
            (place / "piece.json").write_bytes(kept)
        return hold(place)

    monkeypatch.setattr("hw1.measures.pieces.hold", other)
    take_pieces(run, ASKS[:1], lacking_pieces(run, ASKS[:1])[:2])
    assert computed == ["member=0_probe=1"]


def test_a_measure_that_fails_keeps_the_pieces_that_it_has(run, monkeypatch):
    take_pieces(run, ASKS[:1], lacking_pieces(run, ASKS[:1])[:3])
    monkeypatch.setattr(spectrum, "_hessian", lambda *given: (_ for _ in ()).throw(ValueError("no: such")))
    (taken,) = take(run, ASKS[:1])
    assert taken.error == "no: such" and len(lacking_pieces(run, ASKS[:1])) == 3


def test_chunks_that_differ_are_made_one(tmp_path):
    """Of a measure that picks its chunk by itself, two jobs may pick two."""
    pieces, asked = Pieces(tmp_path / ".x.pieces", "k"), []

    def compute(names, chunk):
        for name in names:
            asked.append((name, chunk))
            yield name, {"chunk": chunk or 256, "value": float(name)}

    (tmp_path / ".x.pieces" / "2").mkdir(parents=True)
    write_record(
        tmp_path / ".x.pieces" / "2" / "piece.json",
        {"format": 2, "key": "k", "piece": "2", "content": {"chunk": 64, "value": 2.5}},
    )
    pieces.fill(["1"], compute)
    assert asked == [("1", 64)]


# The segment between two networks


@pytest.fixture
def segment(tmp_path, monkeypatch):
    """(sweep, its study) of a segment of 13 points, on one core, in pieces of two points of the train set."""
    monkeypatch.setattr(between, "WORTH_WORKERS", 1)
    monkeypatch.setattr(between, "PIECE", 3000)
    monkeypatch.setattr("hw1.studies.flatness_interp.cores", lambda: 1)
    folders = [make_run(tmp_path, size)[0] for size in (16, 64)]
    study = {"pair_by": "dataset.batch_size", "start": -1.0, "stop": 2.0, "points": 13}
    sweep = Sweep.read(
        make_sweep(tmp_path, folders, ["dataset.batch_size"], study={"_target_": "hw1.studies.FlatnessInterp", **study})
    )
    return sweep, FlatnessInterp(**study)


def measured(sweep, study):
    """The digest of the table on disk."""
    folder = sweep.path.parent.parent / "measurements"
    study.measure(sweep, Cache(folder))
    (file,) = folder.glob("*.csv")
    assert not list(folder.glob(".*.pieces"))
    return file_digest(file)


def test_a_segment_goes_on_behind_a_kill(segment, monkeypatch):
    sweep, study = segment
    monkeypatch.setattr(between, "WORTH_WORKERS", 10**9)
    whole = measured(sweep, study)
    shutil.rmtree(sweep.path.parent.parent / "measurements")
    monkeypatch.setattr(between, "WORTH_WORKERS", 1)
    calls, compute = [], between.values_of

    def killed(part):
        calls.append(part.name)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return compute(part)

    monkeypatch.setattr(between, "values_of", killed)
    with pytest.raises(KeyboardInterrupt):
        measured(sweep, study)
    calls += ["-"] * 10
    assert measured(sweep, study) == whole
    assert len(set(calls)) == 1 + 7 + 2 and len(calls) == 10 + 9 + 1  # the one that was under way is begun again


def test_parts_of_a_segment_are_anybodys(segment, monkeypatch):
    sweep, study = segment
    labels = [part.label for part in lacking_parts(sweep.path)]
    assert len(labels) == 9 == len(set(labels))
    keep_parts(sweep.path, labels[::-2])
    assert {part.label for part in lacking_parts(sweep.path)} == set(labels) - set(labels[::-2])
    calls, compute = [], between.values_of
    monkeypatch.setattr(between, "values_of", lambda part: calls.append(part.label) or compute(part))
    split = measured(sweep, study)
    assert sorted(calls) == sorted(set(labels) - set(labels[::-2]))
    monkeypatch.setattr(between, "WORTH_WORKERS", 10**9)
    shutil.rmtree(sweep.path.parent.parent / "measurements")
    assert measured(sweep, study) == split and lacking_parts(sweep.path) == []


# What a command makes of it


class Counting:
    def __init__(self, workers):
        self.count = lambda runs: min(workers, len(runs))


@pytest.mark.parametrize(
    ("asked", "launcher", "node", "runs", "jobs"),
    [
        ("auto", object(), {"array_parallelism": 4}, 1, 16),
        ("auto", object(), {"array_parallelism": 4}, 4, 0),  # a run each
        ("auto", object(), {"array_parallelism": 1}, 1, 0),
        ("auto", object(), {"array_parallelism": 3}, 2, 12),
        ("auto", object(), {}, 1, 0),  # as many as who knows
        (False, object(), {"array_parallelism": 4}, 1, 0),
        (5, object(), {}, 9, 5),
        ("auto", Counting(1), {}, 1, 0),
        ("auto", object(), {"array_parallelism": 4}, 0, 0),
        ("auto", SimpleNamespace(detach=False), {"array_parallelism": 256}, 1, 0),  # a queue, in which each would wait
        (5, SimpleNamespace(detach=False), {"array_parallelism": 256}, 1, 5),
        ("auto", SimpleNamespace(detach=True), {"array_parallelism": 256}, 1, 0),
    ],
)
def test_pieces_are_jobs_where_workers_would_be_idle(asked, launcher, node, runs, jobs):
    assert jobs_asked(asked, launcher, node, [None] * runs) == jobs


@pytest.mark.parametrize("asked", ["yes", 0, -1, True, 1.5, None])
def test_other_words_are_refused(asked):
    with pytest.raises(ConfigError, match=r"^hydra\.sweeper\.pieces: got .*, expected auto, false or a number of jobs"):
        jobs_asked(asked, object(), {}, [None])


def test_a_command_that_leaves_puts_no_pieces_together():
    said = r"^hydra\.sweeper\.pieces: got 5 beside --detach, expected auto or false: .*; leave out one of them$"
    with pytest.raises(ConfigError, match=said):
        jobs_asked(5, SimpleNamespace(detach=True), {}, [None])


def test_data_are_fetched_before_pieces_are_launched(run, monkeypatch):
    happened = []

    class Launcher:
        def launch(self, words, initial_job_idx):
            happened.append(f"{len(words)} jobs")
            return []

    job = Job([], run.settings, run.path)
    record = {"measures": [ask.record() for ask in ASKS]}
    monkeypatch.setattr(piecing, "fetch", lambda jobs: happened.append(("fetched", *jobs)))
    piecing.launch_pieces(Launcher(), [job], ASKS, 2, run.path.parent / "sweep.json", record)
    assert happened == [("fetched", job), "2 jobs"]


def test_shares_are_of_one_run_each():
    left = [("a", 0), ("a", 1), ("a", 2), ("b", 3), ("b", 4)]
    assert _shares(left, 2) == [("a", [0, 1, 2]), ("b", [3, 4])]
    assert _shares(left, 100) == [(job, [piece]) for job, piece in left]
    assert _shares(left, 1) == [("a", [0, 1, 2]), ("b", [3, 4])]
