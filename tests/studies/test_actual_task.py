import re

import pytest

from hw1.measures.cache import Cache
from hw1.runs import Sweep
from hw1.studies import ActualTask
from made_classifiers import make_classifier
from made_runs import make_run, make_sweep

SMALL, LARGE = 310, 385  # parameters of hidden sizes 4 and 5-6
KEYS = ["model.hidden", "seed"]


@pytest.fixture
def tables(tmp_path):
    """Two models of three seeds; test accuracy 0.7 and 0.8, 0.01 more a seed, 0.1 more an epoch."""
    folders = [
        make_classifier(
            tmp_path,
            lambda name, epoch, member, seed=seed, base=base: base + 0.01 * seed + 0.1 * (epoch - 3),
            hidden=hidden,
            seed=seed,
            seconds=10.0 + seed,
        )
        for hidden, base in (([4], 0.8), ([5, 6], 0.7))
        for seed in (0, 1, 2)
    ]
    sweep = Sweep.read(make_sweep(tmp_path, folders, KEYS))
    return ActualTask().measure(sweep, Cache(tmp_path))


def test_the_table_of_models(tables):
    small, large = tables["models"].to_dict("records")
    assert [row["parameters"] for row in (small, large)] == [SMALL, LARGE]
    for row, base in ((small, 80), (large, 70)):
        assert [row[name] for name in ("accuracy", "low", "high")] == pytest.approx([base + 1, base, base + 2])
        assert (row["n"], row["seconds"]) == (3, 11.0)


def test_the_headlines_are_final_test_accuracies(tables):
    one, two = ActualTask().headlines(tables, KEYS)
    assert one.name == "test_accuracy 4 (310 parameters)" and (one.n, two.n) == (3, 3)
    assert (one.value, two.value) == pytest.approx((0.81, 0.71))


def test_a_difference_of_accuracies_is_at_most_1(tables):
    """Student's interval of 0.1, 0.5 and 0.9 goes up to 1.49."""
    curves = tables["learning_curves"]
    end = (curves["epoch"] == curves["epoch"].max()) & (curves["split"] == "test") & (curves["quantity"] == "accuracy")
    low = {0: 0.9, 1: 0.5, 2: 0.1}
    curves.loc[end, "value"] = [
        1 - 1e-3 * seed if parameters == SMALL else low[seed]
        for seed, parameters in zip(curves["seed"][end], curves["parameters"][end], strict=True)
    ]
    (sentence,) = [s for s in ActualTask().answer(tables, KEYS, []).sentences if "points" in s]
    low, high = (float(number) for number in re.search(r"points \[(.*), (.*)\]", sentence).groups())
    assert -100 < low < high < 100 and "undecided" in sentence


def test_loss_of_all_models_in_one_chart_and_accuracy_in_another(tables):
    figures = ActualTask().draw(tables, KEYS)
    looks = {line.get_label(): line.get_linestyle() for line in figures["loss"].legends[0].get_lines()}
    captions = ActualTask().answer(tables, KEYS, ActualTask().headlines(tables, KEYS)).captions
    assert (looks["train set"], looks["test set"]) == ("-", "--")
    assert captions["loss"].endswith("full lines train, dashed ones test.")
    assert list(figures) == ["loss", "accuracy"]
    for name, figure in figures.items():
        (axes,) = figure.axes
        assert name in axes.get_ylabel() and len(axes.lines) == 4


def test_no_complete_run_is_no_table(tmp_path):
    sweep = Sweep.read(make_sweep(tmp_path, [make_run(tmp_path, status="failed")[0]], []))
    assert ActualTask().measure(sweep, Cache(tmp_path)) == {}
