"""Stored files in which anything may stand anywhere: every reader gives its own error, one line, or reads on.

A checksum says nothing of a file that a stranger wrote: all files here are whole.
"""

import contextlib
import copy
import functools
import hashlib
import io
import json
import random
import shutil

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hw1.__main__ import main
from hw1.record_shapes import misshapen
from hw1.records import DamagedError, read_record
from hw1.runs import Run, Sweep, read_measured
from hw1.settings import ConfigError, RunSettings
from hw1.settings.stored_yaml import from_yaml
from hw1.stored_csv import read_csv
from hw1.stored_json import from_json
from made_runs import make_run, make_sweep, measured_by_hand, run_settings

HOUSE = (ConfigError, DamagedError, FileNotFoundError)
GONE = object()
VALUES = (None, [], {}, {"a": 1}, [None], [[1]], 10**18, -1, 1e308, float("nan"), "text", "", "\x00", True, GONE)
KINDS = ("result", "settings", "sweep", "measure")


def seal(file, record):
    """Write a record as a stranger would: whole, and not signed."""
    content = {name: value for name, value in record.items() if name != "checksum"}
    checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps({**content, "checksum": checksum}))


def nodes(value, path=()):
    """Every place in a record but its checksum."""
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in pairs:
        if (*path, name) != ("checksum",):
            yield from nodes(inner, (*path, name))


def changed(value, path, new):
    value = copy.deepcopy(value)
    place = functools.reduce(lambda node, name: node[name], path[:-1], value)
    if new is GONE:
        del place[path[-1]]
    else:
        place[path[-1]] = new
    return value


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """(runs, sweep): two runs with all that a result can hold, and two sweeps of them."""
    root = tmp_path_factory.mktemp("out")
    folders = []
    for seed in (0, 1):
        folder, _ = make_run(root, seed=seed)
        (folder / "metrics.csv").write_text("epoch,step,train_step/loss,test/loss\n0,0,1.5,\n0,1,1.25,0.5\n")
        values = {"sharpness/trace": 1.5, "sharpness/trace_standard_error": 0.1}
        measured_by_hand(folder, "sharpness", values, rows=[{"member": 0, "x": 1.0}])
        plain = yaml.safe_load((folder / "config.yaml").read_text())
        begun = {"format": 2, "key": folder.name[-10:], "name": "hand", "overrides": ["seed=0"], "settings": plain}
        seal(folder / "settings.json", begun | {"time": "2026", "code": {}, "data": None})
        result = json.loads((folder / "result.json").read_text())
        more = {"format": 2, "settings": plain, "code": {}, "constant": {"train/loss": 2.3}, "files": {}}
        seal(folder / "result.json", result | more)
        folders.append(folder)
    for time in ("2026-01-01_00-00-00", "2026-01-02_00-00-00"):
        words = [["seed=0"], ["seed=1"]]
        sweep = make_sweep(root, folders, ["seed"], overrides=words, measures=["sharpness"], time=time)
        number = {"name": "x", "value": 1.0, "low": 0.5, "high": 2.0, "n": 3}
        more = {"about": {"title": "t"}, "failed": {}, "answer": ["a"], "captions": {"a": "b"}, "headlines": ["x = 1"]}
        more |= {"format": 2, "status": "complete", "numbers": [number], "files": {}, "caches": {}, "budget": "full"}
        more |= {"launched": [], "launched_at": 0.0, "measured_later": [], "measuring_threads": 1}
        seal(sweep / "sweep.json", json.loads((sweep / "sweep.json").read_text()) | more)
    return folders, sweep


def file_of(kind, folders, sweep):
    measured = next((folders[0] / "measures").glob("*.json"))
    places = (folders[0] / "result.json", folders[0] / "settings.json", sweep / "sweep.json", measured)
    return dict(zip(KINDS, places, strict=True))[kind]


def readers(folders, sweep):
    """(name, what reads) of all that opens results without training."""
    run, root = functools.cache(lambda: Run(folders[0])), sweep.parents[2]
    yield "repr", lambda: (repr(run()), run()._repr_html_())
    yield "settings", lambda: (run().settings, run().code, run().removed, run().weights_digest())
    yield "metrics", lambda: (run().metrics(0), run().history(), run().measures())
    read = functools.cache(lambda: Sweep.read(sweep))
    yield "sweep", lambda: (repr(read()), read()._repr_html_(), read().keys, read().about, read().asks, read().answer)
    yield "members", lambda: [(one.cells, one.metrics, one.seed, one.origin) for one in read().members()]
    yield "tables", lambda: (read().table(), read().history(), read().measures(), read().columns(), read().tables)
    yield "select", lambda: read().select(seed=1)
    for words in (
        ["list", root],
        ["list", sweep],
        ["list", root, "optimizer.lr=0.001"],
        ["verify", root],
        ["export", sweep, "-o", "-"],
        ["clean", root],
        ["compare", sweep.parent / "2026-01-01_00-00-00", sweep, "-o", root / "page.html"],
    ):
        yield words[0], lambda words=words: _command(words)


def _command(words):
    """A command: exit code 1 with one line an error, or 0."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    said = [line for line in err.getvalue().splitlines() if line.startswith("error:")]
    assert code == 0 or len(said) == 1 or words[0] in ("verify", "report", "clean"), (words, err.getvalue())
    assert "Traceback" not in err.getvalue()


def attempt(label, read):
    try:
        read()
    except HOUSE as error:
        assert "\n" not in str(error), label
    except Exception as error:
        raise AssertionError(f"{label}: {type(error).__name__}: {error}") from error


def try_all(kind, output, cases, only=None):
    folders, sweep = output
    file, result = file_of(kind, *output), folders[0] / "result.json"
    kept = {one: one.read_bytes() for one in (file, result)}
    whole = json.loads(file.read_text())
    try:
        if kind == "settings":  # read where result.json has none
            seal(result, {name: value for name, value in json.loads(kept[result]).items() if name != "settings"})
        for path, value in cases(list(nodes(whole))):
            seal(file, changed(whole, path, value))
            label = f"{kind}: {'.'.join(map(str, path))} = {'gone' if value is GONE else value!r}"
            for name, read in readers(folders, sweep):
                if only is None or name in only:
                    attempt(f"{name}: {label}", read)
    finally:
        for one, content in kept.items():
            one.write_bytes(content)


@pytest.mark.parametrize("kind", KINDS)
def test_anything_anywhere_in_a_record(kind, output):
    """A seeded sample of all places and values; `slow` takes a larger one."""
    draw = random.Random(kind)
    try_all(kind, output, lambda places: [(draw.choice(places), draw.choice(VALUES)) for _ in range(5)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_much_anywhere_in_a_record(kind, output):
    draw = random.Random(f"{kind} slow")
    try_all(kind, output, lambda places: draw.sample([(path, value) for path in places for value in VALUES], 120))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("sweep", "result"))
def test_the_report_of_anything(kind, output, tmp_path):
    draw, sweep = random.Random(kind), output[1]
    file, root = file_of(kind, *output), sweep.parents[2]
    whole = json.loads(file.read_text())
    places = list(nodes(whole))
    for number in range(40):
        path, value = draw.choice(places), draw.choice(VALUES)
        copied = tmp_path / str(number)
        shutil.copytree(root, copied)
        seal(copied / file.relative_to(root), changed(whole, path, value))
        words = ["report", copied / sweep.relative_to(root)]
        attempt(f"report: {path} = {value!r}", functools.partial(_command, words))


def test_a_record_says_which_key_is_wrong(output):
    file = output[1] / "sweep.json"
    whole = file.read_bytes()
    seal(file, json.loads(whole) | {"swept": "seed"})
    with pytest.raises(DamagedError) as caught:
        read_record(file)
    file.write_bytes(whole)
    assert str(caught.value) == f"{file}: swept: got 'seed', expected a list; delete it and run the command again"


def test_records_as_hw1_writes_them_have_their_shapes(output):
    folders, sweep = output
    for kind in KINDS:
        file = file_of(kind, folders, sweep)
        assert misshapen(file.name, file.parent.name, json.loads(file.read_text())) == ""
    assert read_measured(file_of("measure", folders, sweep)) is not None


@pytest.mark.parametrize("path", list(nodes(run_settings(replicas=2, callbacks={}, about={"title": "t"}))), ids=str)
def test_anything_anywhere_in_settings(path):
    whole = run_settings(replicas=2, callbacks={}, about={"title": "t"})
    for value in (*VALUES, 10**400, "${seed}", "${oc.env:HOME}"):
        with contextlib.suppress(ConfigError):
            made = RunSettings.check(changed(whole, path, value))
            assert made.members <= 10_000 and made.member_seeds and made.key


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
LIGHT = settings(
    max_examples=30, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@LIGHT
@given(st.text(max_size=60))
def test_any_text_as_yaml_and_json(text):
    for read in (from_yaml, from_json):
        try:
            read(text)
        except ValueError as error:
            assert "\n" not in str(error)


@LIGHT
@given(PLAIN)
def test_plain_values_survive_yaml(value):
    if "nan" not in repr(value):
        assert from_yaml(yaml.safe_dump({"a": value})) == {"a": value}


@LIGHT
@given(st.dictionaries(st.sampled_from(sorted(run_settings())), PLAIN, max_size=3))
def test_any_value_of_a_top_setting(changes):
    with contextlib.suppress(ConfigError):
        RunSettings.check({**run_settings(), **changes})


@LIGHT
@given(st.binary(max_size=80))
def test_any_bytes_as_a_table(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("csv") / "metrics.csv"
    file.write_bytes(content)
    with contextlib.suppress(DamagedError):
        read_csv(file, ("epoch",))
