"""Two sweeps side by side: what is matched with what, and whether the intervals are what they claim to be."""

import json
import math
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy.stats import ttest_ind, ttest_rel

from hw1.report.compare import compare
from hw1.report.differences import PAIRED, WELCH, of_headlines, of_seeds
from hw1.report.side_by_side import lines, write_page
from hw1.runs import Sweep
from hw1.settings import ConfigError
from hw1.studies.headlines import Headline, share_headline
from made_runs import make_members, make_run, make_sweep, measured_by_hand

A, B = {0: 1.0, 1: 2.5, 2: 2.0, 3: 4.5}, {0: 1.5, 1: 2.0, 2: 3.5, 3: 5.5}


def test_intervals_are_scipys():
    found, expected = of_seeds("x", "", A, B, math.inf), ttest_rel(list(B.values()), list(A.values()))
    assert found.how == PAIRED and found.value == 0.625 and found.seeds == "4 pairs"
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    later = {seed + 10: value for seed, value in list(B.items())[:3]}
    found, expected = (
        of_seeds("x", "", A, later, math.inf),
        ttest_ind(list(later.values()), list(A.values()), equal_var=False),
    )
    assert found.how == WELCH and found.seeds == "4 and 3"
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_what_counts():
    some = of_seeds("x", "", A, {2: 3.0, 3: 5.0, 9: 100.0}, math.inf)  # of the seeds in both alone
    assert (some.a, some.b, some.n, some.how) == (3.25, 4.0, (2, 2), PAIRED)
    one = of_seeds("x", "", {0: 1.0}, {0: 2.0}, math.inf)
    assert one.value == 1.0 and math.isnan(one.low) and not one.decided and one.reading == "n = 1: no interval"
    lost = of_seeds("x", "", {0: math.nan, 1: 1.0, 2: math.inf}, B, math.inf)
    assert (lost.n, lost.how, lost.a) == ((1, 4), "", 1.0)
    assert of_seeds("x", "", A, dict(A), math.inf).reading == "the same"
    assert of_seeds("x", "", A, {}, math.inf).reading == "only A" and of_seeds("x", "", {}, B, 1.0).reading == "only B"
    assert of_seeds("x", "", A, {}, math.inf).asked == (4, 0)
    wide = of_seeds("test/accuracy", "", {0: 0.0, 1: 1.0}, {0: 1.0, 1: 0.5}, 1.0)
    assert (wide.low, wide.high) == (-1.0, 1.0) and wide.reading == "undecided"


def test_seeds_that_are_not_finite_are_counted():
    nan = {0: math.nan, 1: 2.0, 2: math.inf, 3: 4.5, 4: math.nan}
    five = A | {4: 1.0}
    uneven = of_seeds("x", "", five, {**nan, 3: 5.0}, math.inf)  # of 2 pairs; 3 of B are gone
    assert (uneven.asked, uneven.lost, uneven.how, uneven.decided) == ((5, 5), (0, 3), "", False)
    assert uneven.reading == "not finite in 0 of 5 and 3 of 5: no verdict"
    alone = of_seeds("x", "", A, {seed + 10: value for seed, value in nan.items()}, math.inf)  # Welch's
    assert alone.reading == "not finite in 0 of 4 and 3 of 5: no verdict" and math.isnan(alone.low)
    even = of_seeds("x", "", {**five, 0: math.nan}, {**five, 0: math.inf, 3: 5.0}, math.inf)
    assert (even.lost, even.how, even.n) == ((1, 1), PAIRED, (4, 4))
    never = dict.fromkeys(A, math.nan)
    assert of_seeds("x", "", A, never, math.inf).reading == "B never finite"
    assert of_seeds("x", "", never, A, math.inf).reading == "A never finite"
    assert of_seeds("x", "", never, never, math.inf).reading == "A and B never finite"
    assert of_seeds("x", "", {}, never, math.inf).reading == "B never finite"


@pytest.mark.parametrize("n", [2, 3, 7])
def test_one_difference_in_every_seed_has_no_spread(n):
    a = {seed: 0.1 * seed for seed in range(n)}
    for shift in (1.0, 0.3, -1e-9):  # whose differences are the same up to rounding
        found = of_seeds("x", "", a, {seed: value + shift for seed, value in a.items()}, math.inf)
        assert found.value == pytest.approx(shift, rel=1e-6) and not found.how and math.isnan(found.high)
        assert not found.decided and found.reading == "no interval"
    level = dict.fromkeys(range(n), 0.5)
    for other in (0.75, 0.5):
        found = of_seeds("x", "", level, dict.fromkeys(range(10, 10 + n), other), 1.0)  # of other seeds
        assert found.value == other - 0.5 and not found.how and found.reading == "no interval"
    assert of_seeds("x", "", level, level, 1.0).reading == "the same"


@pytest.mark.parametrize("paired", [True, False])
def test_intervals_hold_the_truth_in_95_percent(paired):
    """5 seeds each, with what a seed does to both; B lies 1 above A."""
    draws = np.random.default_rng(0)
    hits, n = 0, 2000
    for _ in range(n):
        luck = draws.normal(0, 3, 5)
        a = dict(enumerate(luck + draws.normal(0, 1, 5)))
        values = (luck if paired else draws.normal(0, 3, 5)) + draws.normal(1, 2, 5)
        found = of_seeds("x", "", a, dict(enumerate(values, 0 if paired else 5)), math.inf)
        hits += found.low <= 1 <= found.high
    assert abs(hits / n - 0.95) < 3 * math.sqrt(0.95 * 0.05 / n)


def test_the_interval_of_two_shares_holds_the_truth():
    draws = np.random.default_rng(1)
    counts = draws.binomial(40, [[0.1, 0.25]] * 1000)
    found = [of_headlines("x", share_headline("", int(a), 40), share_headline("", int(b), 40)) for a, b in counts]
    assert 0.93 < np.mean([one.low <= 0.15 <= one.high for one in found]) < 0.98
    assert all(-1 <= one.low <= one.high <= 1 for one in found)
    nothing = of_headlines("x", Headline("", 1.0, math.nan, math.nan, 1), Headline("", 2.0, 1.5, 2.5, 3))
    assert nothing.value == 1.0 and not nothing.how and nothing.reading == "n = 1: no interval"


def loss(value):
    return {"test/loss": value, "test/accuracy": 0.5}


def sweep_of(root, values, *, time="2026-01-01_00-00-00", swept=("dataset.batch_size", "seed"), numbers=(), **others):
    """A sweep with the test loss of each (batch size, seed)."""
    folders = [make_run(root, size, seed, metrics=loss(value), **others)[0] for (size, seed), value in values.items()]
    folder = make_sweep(root, folders, swept, time=time)
    record = json.loads((folder / "sweep.json").read_text()) | {"status": "complete"}
    record["numbers"] = [dict(zip(("name", "value", "low", "high", "n"), number, strict=True)) for number in numbers]
    (folder / "sweep.json").write_text(json.dumps(record))
    return Sweep.read(folder)


def test_settings_are_matched_and_seeds_paired(tmp_path):
    a = sweep_of(tmp_path / "a", {(64, 0): 1.0, (64, 1): 2.0, (1024, 0): 3.0, (1024, 1): 5.0})
    b = sweep_of(tmp_path / "b", {(64, 0): 1.1, (64, 1): 2.102, (64, 2): 9.0, (512, 0): 4.0}, lr=0.01)
    found = compare(a, b)
    assert {one.name: (one.a, one.b) for one in found.settings} == {
        "dataset.batch_size": ("64, 1024", "64, 512"), "optimizer.lr": ("0.001", "0.01"), "seed": ("0, 1", "0 to 2"),
    }  # fmt: skip
    rows = {(one.setting, one.name): one for one in found.metrics}
    both = rows["batch size 64", "test loss"]
    assert both.n == (2, 2) and both.value == pytest.approx(0.101) and both.reading == "B is higher"
    assert rows["batch size 1024", "test loss"].reading == "only A"
    assert rows["batch size 512", "test loss"].reading == "only B" and list(rows)[-1][0] == "batch size 512"
    assert found.summary == "1 of 1 interval of metrics excludes 0; if nothing differed, about 0.05 would."


def test_other_values_of_a_key_are_compared_in_their_order(tmp_path):
    a = sweep_of(
        tmp_path / "a",
        {(1024, 0): 3.0, (64, 0): 1.0},
        numbers=[("barrier lr=0.1 dataset.batch_size=64-1024", 1.0, 0.7, 1.3, 3)],
    )
    b = sweep_of(
        tmp_path / "b",
        {(32, 0): 1.5, (512, 0): 3.25},
        numbers=[("barrier lr=0.1 dataset.batch_size=32-512", 2.0, 1.6, 2.4, 3)],
    )
    found = compare(a, b, ["test/loss"])
    assert [(one.setting, one.value) for one in found.metrics] == [
        ("batch size 1024 | 512", 0.25), ("batch size 64 | 32", 0.5),
    ]  # fmt: skip
    assert found.notes == [
        "dataset.batch_size: no value is in both sweeps; compared in their order: 64 with 32, 1024 with 512."
    ]
    (number,) = found.numbers
    assert (number.low, number.high) == pytest.approx((0.5, 1.5))
    assert number.name == "barrier, lr 0.1, batch size 64-1024 | 32-512"
    fixed = sweep_of(tmp_path / "c", {(16, 0): 2.0}, swept=())
    assert {one.reading for one in compare(a, fixed).metrics} == {
        "only A",
        "only B",
    }  # two against one: nothing to pair


def test_numbers_of_several_settings_find_their_like(tmp_path):
    """Other batch sizes in both, the same learning rates: a number goes with that of its learning rate."""
    sweeps = []
    for name, sizes, shift in (("a", (64, 1024), 0.0), ("b", (32, 512), 1.0)):
        between = f"{sizes[0]}-{sizes[1]}"
        numbers = [
            (
                f"barrier optimizer.lr={lr} dataset.batch_size={between}",
                lr + shift,
                lr + shift - 0.1,
                lr + shift + 0.1,
                3,
            )
            for lr in (0.1, 0.01)
        ]
        sweeps.append(sweep_of(tmp_path / name, {(size, 0): 1.0 for size in sizes}, numbers=numbers))
    found = compare(*sweeps)
    assert [(one.name, one.value) for one in found.numbers] == [
        ("barrier, learning rate 0.1, batch size 64-1024 | 32-512", 1.0),
        ("barrier, learning rate 0.01, batch size 64-1024 | 32-512", 1.0),
    ]
    narrow = lines(found, 80)
    at = narrow.index("batch size 64 | 32:")
    assert narrow[at - 1].split()[0] == "quantity" and narrow[at + 1].startswith("test loss ")
    assert "barrier, learning rate 0.01, batch size 64-1024 | 32-512: A 0.01, B 1.01, B - A 1 " in " ".join(
        map(str.strip, narrow)
    )
    assert all("…" not in line for line in narrow)  # nothing that tells rows apart, and no number, is cut


def test_one_end_may_move_and_what_both_have_is_no_row(tmp_path):
    """A user changes the small batch size alone: the large one's run is in both, and barriers go by learning rate."""
    sweeps = []
    for day, small in ((1, 64), (2, 256)):
        rates = (0.1, 0.01)
        numbers = [
            (f"barrier optimizer.lr={lr} dataset.batch_size={small}-1024", small * lr, math.nan, math.nan, 1)
            for lr in rates
        ]
        values = {(small, 0): float(small), (1024, 0): 3.0}
        for run in (tmp_path / "hand" / "runs").glob("batch_size=1024_*"):  # is made again, as it was
            shutil.rmtree(run)
        sweeps.append(sweep_of(tmp_path, values, time=f"2026-01-0{day}_00-00-00", numbers=numbers))
    found = compare(*sweeps, ["test/loss"])
    assert [(one.name, one.a, one.b) for one in found.numbers] == [
        ("barrier, learning rate 0.1, batch size 64-1024 | 256-1024", 6.4, 25.6),
        ("barrier, learning rate 0.01, batch size 64-1024 | 256-1024", 0.64, 2.56),
    ]
    assert [(one.setting, one.reading) for one in found.metrics] == [
        ("batch size 64", "only A"),
        ("batch size 256", "only B"),
    ]
    assert found.notes == ["1 run of both sweeps is the same: no difference of trainings is to be seen there."]
    assert found.summary.endswith("in both sweeps, of runs that are not the same.")
    (run,) = (tmp_path / "hand" / "runs").glob("batch_size=1024_*")
    measured_by_hand(run, "sharpness", {"sharpness/trace": [1.0]}, columns={"sharpness/trace": "trace"})
    record = json.loads((sweeps[1].path / "sweep.json").read_text())
    asked = json.loads((make_sweep(tmp_path, [run], [], time="x", measures=["sharpness"]) / "sweep.json").read_text())
    (sweeps[1].path / "sweep.json").write_text(json.dumps(record | {"measures": asked["measures"]}))
    told = compare(sweeps[0], Sweep.read(sweeps[1].path)).metrics
    assert ("batch size 1024", "trace", "only B") in [(one.setting, one.name, one.reading) for one in told]


def test_members_are_seeds_and_measures_are_quantities(tmp_path):
    sweeps = []
    for name, shift in (("a", 0.0), ("b", 1.0)):
        root = tmp_path / name
        singles = [make_run(root / "singles", seed=seed, metrics=loss(seed + shift)) for seed in range(3)]
        folder = make_members(root, singles)
        values = {"sharpness/trace": [1.0 + shift, 2.0, 3.0 - shift], "sharpness/trace_standard_error": [0.1] * 3}
        measured_by_hand(folder, "sharpness", values, columns={"sharpness/trace": "trace of the Hessian"})
        sweeps.append(Sweep.read(make_sweep(root, [folder], [], measures=["sharpness"])))
    rows = {one.name: one for one in compare(*sweeps).metrics}
    assert set(rows) == {"test loss", "test accuracy", "trace of the Hessian"}  # no standard error
    assert rows["test loss"].n == (3, 3) and rows["test loss"].value == 1.0
    assert rows["trace of the Hessian"].reading == "undecided" and rows["trace of the Hessian"].setting == ""
    assert "1 run of both sweeps is the same: no difference of trainings is to be seen there." in compare(*sweeps).notes


def test_members_that_diverged_are_told(tmp_path):
    sweeps = []
    for name, lost in (("a", ()), ("b", (0, 2, 3))):
        root = tmp_path / name
        losses = [math.nan if seed in lost else 1.0 + seed**2 for seed in range(5)]
        singles = [make_run(root / "singles", seed=seed, metrics=loss(value)) for seed, value in enumerate(losses)]
        folder = make_members(root, singles, lr=0.1 if lost else 0.01)
        sweeps.append(Sweep.read(make_sweep(root, [folder], [])))
    found = compare(*sweeps)
    assert "B: not finite in 3 of 5 seeds: test loss." in found.notes
    rows = {one.name: one for one in found.metrics}
    assert rows["test loss"].reading == "not finite in 0 of 5 and 3 of 5: no verdict"
    assert rows["test accuracy"].reading == "the same"  # of all five
    assert found.summary == "Wherever metrics have an interval they are the same in both sweeps."
    assert "B: not finite in 3 of 5 seeds: test loss." in lines(found, None)


def test_what_is_missing_is_said(tmp_path):
    a = sweep_of(tmp_path / "a", {(64, 0): 1.0})
    failed = Sweep.read(make_sweep(tmp_path / "b", [make_run(tmp_path / "b", status="failed")[0]], []))
    with pytest.raises(ConfigError, match="got a sweep without a complete run"):
        compare(a, failed)
    with pytest.raises(ConfigError, match="got this sweep twice"):
        compare(a, Sweep.read(a.path))
    partly = [make_run(tmp_path / "c", seed=0)[0], make_run(tmp_path / "c", seed=1, status="failed")[0]]
    c = Sweep.read(make_sweep(tmp_path / "c", partly, ["seed"]))
    assert compare(a, c).notes[0] == "B is interrupted: 1 of its 2 runs are complete."
    with pytest.raises(ConfigError, match=r"^metrics: got nosuch, expected some of train/loss, "):
        compare(a, c, ["nosuch"])


class Tags(HTMLParser):
    """Refuses tags that do not close, and notes ids, addresses and text."""

    VOID = ("meta", "link", "br", "img", "line", "hr")

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in self.VOID

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page(tmp_path):
    evil = "<script>alert(1)</script>\x1b[2J"
    a = sweep_of(
        tmp_path / "a", {(64, seed): float(seed) for seed in range(3)}, numbers=[(f"barrier {evil}", 1.0, 0.5, 1.5, 3)]
    )
    b = sweep_of(
        tmp_path / "b",
        {(64, seed): 1.1 * seed + 1.0 for seed in range(3)},
        numbers=[(f"barrier {evil}", 1.0, 0.5, 1.5, 3)],
        lr=0.01,
    )
    (b.path / "report.html").write_text("")
    found = compare(a, b)
    write_page(found, tmp_path / "pages" / "page.html")
    text = (tmp_path / "pages" / "page.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and "<script" not in text and "http" not in text
    page = Tags()
    page.feed(text)
    assert not page.open and page.addresses == ["../b/hand/sweeps/2026-01-01_00-00-00/report.html"]
    assert (
        "test loss (batch size 64): B is higher, by 1.1; B − A is in [0.852, 1.35] (3 pairs, paired by seed)."
        in " ".join(page.text)
    )
    assert "prefers-color-scheme: dark" in text and text.count("<svg") == 2  # none where all is equal
    assert "\x1b" not in text
    heads = re.findall(r'<th scope="col">(n|Seeds)</th>', text)
    assert heads == ["n", "Seeds"]  # what a headline counts need not be seeds
    assert "\x1b" not in "\n".join(lines(found, None)) and max(map(len, lines(found, 70)[3:-1])) <= 70


def test_the_command(tmp_path, hw1):
    a, b = (sweep_of(tmp_path / name, {(64, 0): 1.0, (64, 1): 2.0}) for name in "ab")
    done = hw1("compare", a.path, tmp_path / "b" / "hand")
    page = b.path / "compare_hand_2026-01-01_00-00-00.html"
    assert done.returncode == 0 and page.exists() and done.stdout.splitlines()[-1] == f"page: {page}"
    assert re.search(
        r"^batch size 64 +test loss +1\.5 +1\.5 +0 +\[0, 0\] +2 pairs +the same$", done.stdout, re.MULTILINE
    )
    for words in (["compare", a.path, a.path], ["compare", a.path, tmp_path], ["compare", a.path, b.path, "nosuch"]):
        done = hw1(*words)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and not done.stdout
