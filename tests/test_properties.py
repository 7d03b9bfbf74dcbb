"""Whatever one gives: settings, functions, partitions, slugs, words, CSV, paths. Derandomised, by hypothesis."""

import copy
import csv
import itertools
import math
import os
import shlex
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import zoo
from hw1.cells import guarded, guarded_table, original, original_table
from hw1.command import normalised, quoted
from hw1.data.functions import FUNCTIONS
from hw1.help import split_values
from hw1.inside import inside, is_name
from hw1.records import DamagedError
from hw1.risk.empirical import EmpiricalRisk
from hw1.runs.folders import slug_of
from hw1.settings import ConfigError, RunSettings, run_key
from hw1.settings.construct import call
from hw1.settings.identity import copied, put, run_seed, select, without
from hw1.settings.interpolation import resolved
from hw1.settings.stored_yaml import from_yaml
from hw1.training.metrics_csv import MetricsCsv
from made_runs import run_settings

few = settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
KEYS = st.from_regex(r"[a-z_]{1,6}", fullmatch=True)
LEAVES = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=8)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))


def shuffled(node, draw):
    """The same mapping, its keys in another order at every depth."""
    if not isinstance(node, dict):
        return node
    return {name: shuffled(node[name], draw) for name in draw(st.permutations(list(node)))}


# Settings


@settings(few, max_examples=8)
@given(st.data(), st.dictionaries(KEYS, TREES, max_size=4))
def test_a_key_knows_no_order_and_survives_the_file(data, more):
    one = {**run_settings(), "model": {"_target_": "mine.Net", **more}}
    two = shuffled(one, data.draw)
    assert run_key(two) == run_key(one) and run_seed(two) == run_seed(one)
    stored = from_yaml(yaml.safe_dump(one, sort_keys=False))
    assert stored == one and run_key(stored) == run_key(one)


@few
@given(st.sampled_from(["lr", "weight_decay", "betas"]), TREES, TREES)
def test_a_key_changes_with_a_value_and_only_then(name, one, two):
    keys = [run_key({**run_settings(), "optimizer": {"_target_": "torch.optim.Adam", name: one}}) for one in (one, two)]
    same = yaml.safe_dump(one) == yaml.safe_dump(two)  # 1 and true and 1.0 are three values
    assert (keys[0] == keys[1]) == same


@few
@given(
    st.dictionaries(KEYS, st.dictionaries(KEYS, TREES, min_size=1, max_size=3), min_size=1, max_size=3),
    st.data(),
    TREES,
)
def test_what_is_put_is_selected_and_what_is_left_out_is_gone(node, data, value):
    group = data.draw(st.sampled_from(sorted(node)))
    name = data.draw(st.sampled_from(sorted(node[group])))
    before, path = copy.deepcopy(node), f"{group}.{name}"
    other = copied(node)
    put(other, path, value)
    assert select(other, path) == value and node == before
    left = without(node, [path])
    assert name not in left[group] and {**left[group], name: node[group][name]} == node[group]


@few
@given(st.dictionaries(KEYS, st.integers() | st.text("abc", max_size=4), min_size=2, max_size=4), st.data())
def test_a_reference_becomes_what_it_names(node, data):
    name = data.draw(st.sampled_from(sorted(node)))
    assert resolved({**node, "Other": f"${{{name}}}"}, "config.yaml") == {**node, "Other": node[name]}


@few
@given(st.sampled_from(["seed", "replicas", "init", "weights", "name", "trainer", "objective", "dataset"]), TREES)
def test_settings_are_those_that_were_given_or_refused_in_a_line(name, value):
    node = {**run_settings(), name: value}
    try:
        checked = RunSettings.check(node)
    except ConfigError as error:
        assert "\n" not in str(error) and str(error).startswith(name)
    else:
        assert checked.plain[name] == value


# Functions

SINC = {"sinc_5pi": 5 * math.pi, "sinc_plus_sin": math.pi, "sinc_plus_square": math.pi}
FORMULAS = {
    "sinc_5pi": lambda x: 0,
    "sgn_sin_5pi": lambda x: np.sign(np.sin(5 * np.pi * x)),
    "cos_1_5": lambda x: np.cos(1.5 * x),
    "sin_2": lambda x: np.sin(2 * x),
    "sinc_plus_sin": lambda x: np.sin(x / 2),
    "sinc_plus_square": lambda x: 0.7 * x**2,
    "sin_2pi_plus_cos_3pi": lambda x: np.sin(2 * np.pi * x) + np.cos(3 * np.pi * x) / 2,
}


@few
@given(st.sampled_from(sorted(FUNCTIONS)), st.floats(-5, 5).filter(lambda x: abs(math.sin(5 * math.pi * x)) > 1e-6))
def test_functions_are_their_formulas(name, x):
    sinc = math.sin(SINC[name] * x) / (SINC[name] * x) if name in SINC and x else float(name in SINC)
    found = FUNCTIONS[name](torch.tensor(x, dtype=torch.float64)).item()
    assert found == pytest.approx(sinc + FORMULAS[name](np.float64(x)), abs=1e-9)


@few
@given(st.text(max_size=12) | st.sampled_from(sorted(FUNCTIONS)), TREES, st.integers(-2, 9))
def test_a_source_of_a_function_is_made_or_refused_by_name(name, domain, points):
    node = {"_target_": "hw1.data.Function", "function": name, "domain": domain, "points": points}
    try:
        made = call({**node, "noise": 0.0, "noise_seed": 0, "test_points": 3}, "dataset")
    except ConfigError as error:
        assert "\n" not in str(error) and str(error).startswith("dataset")
    else:
        assert name in FUNCTIONS and points > 0 and made.in_shape == (1,)


# Partitions


@settings(few, max_examples=8)
@given(st.lists(st.integers(1, zoo.N - 1), max_size=4, unique=True), st.integers(1, zoo.N + 3))
def test_a_mean_over_any_partition_and_chunks_is_the_mean(cuts, chunk):
    one = zoo.case("relu")
    one.net.double()
    ends = [0, *sorted(cuts), zoo.N]
    batches = [(one.x[a:b], one.y[a:b]) for a, b in itertools.pairwise(ends)]
    risk = EmpiricalRisk(one.net, one.loss, batches, chunk_size=chunk, check=False)
    loss = one.loss(one.net(one.x), one.y)
    gradients = torch.autograd.grad(loss, list(one.net.parameters()))
    theta = torch.cat([value.detach().reshape(-1) for value in one.net.parameters()])
    expected = torch.cat([value.reshape(-1) for value in gradients])
    torch.testing.assert_close(risk(theta).double().reshape(()), loss.detach().double(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(risk.gradient(theta), expected, rtol=1e-9, atol=1e-12)


# Slugs and words

WORDS = st.lists(st.text(max_size=60) | st.builds("{}={}".format, KEYS, st.text(max_size=60)), max_size=6)


@example(["\U00010330" * 90])
@settings(few, max_examples=50)
@given(WORDS | st.lists(st.text("\U00010330\u4e00é", min_size=1, max_size=90), max_size=2))
def test_a_slug_is_the_name_of_a_folder(words):
    slug = slug_of(words)
    assert 0 < len(slug) <= 80 and is_name(slug) and slug not in (".", "..") and slug == slug.strip()
    assert len(os.fsencode(f"{slug}-0123456789")) <= 255 and not slug.startswith((".", "-"))


@few
@given(st.lists(st.text("ab1.", min_size=1, max_size=5) | st.sampled_from(["[1,2]", "'a,b'", "f(1,2)", "{a:1,b:2}"])))
def test_values_are_split_where_they_were_joined(values):
    assert split_values(",".join(values)) == (values or [""])


@few
@given(st.lists(st.sampled_from(["seed=1,2", "model=mlp", "--dry-run", "-m", "--multirun"]), max_size=5))
def test_the_place_of_m_says_nothing(words):
    assert normalised(words) == normalised([word for word in words if word not in ("-m", "--multirun")])
    assert normalised(words).count("--multirun") == 1


@few
@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20))
def test_a_quoted_text_is_itself_to_hydra(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (word,) = OverridesParser.create().parse_overrides([f"key={quoted(text)}"])
    assert str(word.value()) == text and shlex.split(shlex.quote(text)) == [text]


# CSV

CELLS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=10)


@settings(few, max_examples=50)
@given(CELLS | st.builds("{}{}".format, st.sampled_from("=+-@'\t\r"), CELLS))
def test_a_guarded_cell_comes_back_and_is_no_formula(text):
    cell = guarded(text)
    assert original(cell) == text
    try:
        float(cell)
    except ValueError:
        assert cell[:1] not in tuple("=+-@\t\r")


@few
@given(
    st.lists(
        st.tuples(
            st.floats(), st.builds("{}{}".format, st.sampled_from("=+-@'x"), st.text("xyz=',\"\n |", max_size=6))
        ),
        min_size=1,
        max_size=5,
    )
)
def test_a_table_comes_back(rows):
    table = pd.DataFrame(rows, columns=["=number", "text"])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.csv"
        guarded_table(table).to_csv(file, index=False)
        back = original_table(pd.read_csv(file))
    assert list(back) == list(table) and list(back["text"]) == list(table["text"])
    np.testing.assert_array_equal(back["=number"].to_numpy(float), table["=number"].to_numpy(float))


@settings(few, max_examples=25)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["a", "b/c", "=d", 'e"f']), st.floats(), min_size=1), min_size=1, max_size=6
    )
)
def test_metrics_come_back(steps):
    with tempfile.TemporaryDirectory() as folder:
        logger = MetricsCsv(Path(folder))
        for step, metrics in enumerate(steps):
            logger.log_metrics({"epoch": step, **metrics}, step)
        logger.finalize("success")
        with open(Path(folder) / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
    assert len(rows) == len(steps)
    for row, metrics in zip(rows, steps, strict=True):
        found = {original(name): float(cell) for name, cell in row.items() if cell and name not in ("epoch", "step")}
        assert set(found) == set(metrics)
        assert all(found[name] == value or math.isnan(value) for name, value in metrics.items())


# Paths

PARTS = st.sampled_from(["a", "..", ".", "", "b.csv", "C:", "~", "link", "\0", "a\\b", "é", " "]) | st.text(max_size=4)


@settings(few, max_examples=50)
@given(st.lists(PARTS, max_size=5).map("/".join))
def test_no_stored_name_leaves_its_folder(name):
    with tempfile.TemporaryDirectory() as top:
        base = Path(top) / "out" / "run"
        base.mkdir(parents=True)
        (base / "link").symlink_to(top)
        try:
            found = inside(base, name)
        except DamagedError as error:
            assert "\n" not in str(error)
        else:
            real = Path(os.path.realpath(found))
            assert real != base.resolve() and real.is_relative_to(base.resolve())
