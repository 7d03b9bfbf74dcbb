"""Intervals keep their level, stay where their quantity lives, and are those of the tests that they come from."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest, pearsonr, rankdata, spearmanr, t

from hw1.studies.correlations import correlation_headline, correlation_of_means_headline
from hw1.studies.headlines import (
    bounded_headline,
    geometric_headline,
    headline,
    paired_headline,
)

SEEDS, MODELS = 3, 6


def swept(random, levels, alike, effect, seeds=SEEDS):
    """(x, y, seed) of a setting at `levels` values; runs of a seed are alike by `alike` standard deviations."""
    x, seed = np.tile(np.arange(levels), seeds), np.repeat(np.arange(seeds), levels)
    return x, effect * x + random.normal(size=len(x)) + alike * random.normal(size=seeds)[seed], seed


def models(random, of_model, of_seed, effect):
    """(x, y, model) of 6 models of one size each; runs of a model are alike, and those of a seed."""
    model, seed = np.repeat(np.arange(MODELS), SEEDS), np.tile(np.arange(SEEDS), MODELS)
    y = of_model * random.normal(size=MODELS)[model] + of_seed * random.normal(size=SEEDS)[seed]
    return model**2, effect * model + y + random.normal(size=len(model)), model


def excluded(design, of, trials, **settings):
    """How often the interval of made-up runs excludes 0."""
    random = np.random.default_rng(3)
    hits = 0
    for _ in range(trials):
        found = of("rho", *design(random, **settings))
        hits += found.low > 0 or found.high < 0
    return hits / trials


def stopped(random, levels, goes, effect, seeds=SEEDS):
    """(x, y, seed, z) of runs that were stopped at almost one loss z, which goes with x, and y with it."""
    x, y, seed = swept(random, levels, 1, effect, seeds)
    z = goes * x + random.normal(size=len(x))
    return x, y + 3 * z, seed, z


def fewer_exchanges(*arguments):
    return correlation_headline(*arguments, resamples=999)


def given_the_fourth(name, x, y, seed, z):
    return correlation_headline(name, x, y, seed, given=z, resamples=999)


WITHOUT_EFFECT = {
    "3 levels, 3 seeds": (swept, fewer_exchanges, {"levels": 3, "alike": 0}),
    "runs of a seed are alike": (swept, fewer_exchanges, {"levels": 3, "alike": 1}),
    "runs of a seed are much alike": (swept, fewer_exchanges, {"levels": 3, "alike": 4}),
    "5 levels, 5 seeds": (swept, fewer_exchanges, {"levels": 5, "alike": 1, "seeds": 5}),
    "3 levels, stopped at almost one loss": (stopped, given_the_fourth, {"levels": 3, "goes": 0.5}),
    "5 levels, stopped at almost one loss": (stopped, given_the_fourth, {"levels": 5, "goes": 1, "seeds": 5}),
    "runs of a model are alike": (models, correlation_of_means_headline, {"of_model": 2, "of_seed": 0}),
    "runs of a model are alike, and of a seed": (models, correlation_of_means_headline, {"of_model": 1, "of_seed": 1}),
}


@pytest.mark.parametrize("design", WITHOUT_EFFECT)
def test_without_an_effect_an_interval_excludes_0_in_2_to_7_of_100(design):
    made, of, settings = WITHOUT_EFFECT[design]
    assert 0.02 <= excluded(made, of, 1200, effect=0, **settings) <= 0.07


def test_an_effect_is_found():
    assert excluded(swept, fewer_exchanges, 200, levels=5, alike=4, effect=1.0) > 0.95
    assert excluded(swept, fewer_exchanges, 200, levels=3, alike=4, effect=1.5) > 0.6
    assert excluded(stopped, given_the_fourth, 200, levels=5, goes=0.5, seeds=5, effect=1.0) > 0.9
    assert excluded(models, correlation_of_means_headline, 200, of_model=1, of_seed=1, effect=2.0) > 0.8


@pytest.mark.parametrize("seed", range(6))
def test_the_interval_excludes_0_where_the_permutation_test_rejects(seed):
    random, x = np.random.default_rng(seed), np.arange(6)
    y = random.normal(size=6) + 0.7 * x * (seed % 2)
    found = correlation_headline("rho", x, y)
    every = np.array(list(itertools.permutations(np.argsort(np.argsort(y)))))  # 720
    exact = np.mean([abs(pearsonr(x, order)[0]) >= abs(found.value) - 1e-9 for order in every])
    assert (found.low > 0 or found.high < 0) == (exact <= 0.05)
    assert found.value == pytest.approx(spearmanr(x, y).statistic)


def test_orders_are_exchanged_within_seeds_alone():
    """Of 3 levels and 3 seeds there are 216; every interval ends where their 95% quantile puts it."""
    x, y, seed = swept(np.random.default_rng(1), 3, 4.0, 0.8)
    found = correlation_headline("rho", x, y, seed, resamples=40000)
    aligned = (y.reshape(3, 3) - y.reshape(3, 3).mean(1, keepdims=True)).ravel()
    ranks = np.argsort(np.argsort(aligned)).reshape(3, 3)
    orders = itertools.product(itertools.permutations(range(3)), repeat=3)
    z = [np.arctanh(pearsonr(x, np.concatenate([ranks[i, list(order[i])] for i in range(3)]))[0]) for order in orders]
    sizes = np.sort(np.abs(z))[::-1]
    tenth, next_one = sizes[9], sizes[sizes < sizes[9] - 1e-9][0]  # 10 of 216 are 4.6%, 11 would be 5.1%
    rare = tenth if (np.abs(z) >= tenth - 1e-9).mean() <= 0.05 else sizes[sizes > tenth + 1e-9][-1]
    last = next_one if rare == tenth else tenth
    rho = spearmanr(x, aligned).statistic
    assert found.value == pytest.approx(rho) and found.n == 3
    assert np.arctanh(found.value) - np.arctanh(found.low) == pytest.approx((rare + last) / 2, abs=1e-6)


def test_seeds_that_are_alone_are_exchanged_with_one_another():
    random = np.random.default_rng(0)
    x, y = random.normal(size=9), random.normal(size=9)
    alone, free = correlation_headline("rho", x, y, range(9)), correlation_headline("rho", x, y)
    assert (alone.low, alone.high, alone.n) == (free.low, free.high, 9)


def test_what_goes_with_a_third_quantity_is_no_effect():
    """The partial correlation within seeds of statsmodels' kind, by least squares on dummies of the seeds."""
    x, y, seed, z = stopped(np.random.default_rng(4), 5, 0.7, 0.2, 5)
    plain, found = correlation_headline("rho", x, y, seed), correlation_headline("rho", x, y, seed, given=z)
    design = np.column_stack([z, seed[:, None] == np.arange(5)])
    left_y, left_x = (values - design @ np.linalg.lstsq(design, values)[0] for values in (y, rankdata(x)))
    assert found.value == pytest.approx(pearsonr(left_x, rankdata(left_y))[0], abs=1e-9)
    assert plain.low > 0.3 > abs(found.value) and found.low < 0 < found.high


def test_a_third_quantity_takes_a_degree_of_freedom():
    """Of 2 seeds and 4 levels 6 are free, of which it takes one."""
    x, y, seed, z = stopped(np.random.default_rng(0), 4, 0.5, 0.0, 2)
    found = correlation_headline("rho", x, y, seed, given=z, resamples=20000)
    design = np.column_stack([z, seed[:, None] == np.arange(2)])
    left_y, left_x = (values - design @ np.linalg.lstsq(design, values)[0] for values in (y, rankdata(x)))
    ranks, every = rankdata(left_y), [list(order) for order in itertools.permutations(range(4))]
    orders = itertools.product(every, every)
    z_of = [np.arctanh(pearsonr(left_x, np.append(ranks[:4][a], ranks[4:][b]))[0]) for a, b in orders]
    half = np.quantile(np.abs(z_of), 0.95) * math.sqrt(6 / 5)
    assert np.arctanh(found.value) - np.arctanh(found.low) == pytest.approx(half, rel=0.04)


def test_too_few_exchanges_give_no_interval():
    found = correlation_headline("rho", [1, 2] * 3, [0, 1, 0, 2, 0, 3], [0, 0, 1, 1, 2, 2])  # 8, of which 2 are extreme
    assert found.value > 0.8 and math.isnan(found.low) and found.n == 3
    assert math.isnan(
        correlation_of_means_headline("rho", [1, 1, 2, 2, 3, 3], [1, 2, 3, 4, 5, 6], [1, 1, 2, 2, 3, 3]).low
    )


@pytest.mark.parametrize(
    ("x", "y"),
    [([1, 2], [1, 2]), ([1] * 8, range(8)), (range(8), [2.0] * 8), (range(4), [1, 2, math.nan, 3]), ([], [])],
)
def test_what_has_no_correlation(x, y):
    found = correlation_headline("rho", x, y)
    assert math.isnan(found.value) and math.isnan(found.low)


def test_a_diverged_run_ranks_last():
    assert correlation_headline("rho", range(6), [0, 1, 2, 3, 4, math.inf]).value == 1


def test_a_correlation_of_1_has_an_interval_below_it():
    found = correlation_headline("rho", range(8), range(8))
    assert found.value == found.high == 1 and 0.5 < found.low < 1


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_units_do_not_matter(scale):
    x, y, seed = swept(np.random.default_rng(2), 3, 1.0, 0.5)
    one, other = correlation_headline("rho", x, y, seed), correlation_headline("rho", x, scale * y, seed)
    assert (one.value, one.low, one.high) == (other.value, other.low, other.high)


def test_intervals_stay_within_their_bounds_and_cover_the_mean_better_than_student_s():
    random, truth = np.random.default_rng(0), 20 / 21
    covered = np.zeros(2)
    for _ in range(1000):
        values = random.beta(20, 1, size=5).tolist()
        both = [headline("accuracy", values), bounded_headline("accuracy", values, 0, 1)]
        covered += [one.low <= truth <= one.high for one in both]
        assert 0 < both[1].low < both[1].value < both[1].high < 1
    assert covered[1] > covered[0] + 20 and covered[1] > 900


def test_a_bounded_mean_of_correlations_is_fisher_s_z():
    """d artanh(r) = dr / (1 - r^2)."""
    values = [0.7, 0.9, 0.8, 0.95]
    mean, error = np.mean(values), np.std(values, ddof=1) / 2
    half = t.ppf(0.975, 3) * error / (1 - mean**2)
    found = bounded_headline("rho", values, -1, 1)
    assert [found.low, found.high] == pytest.approx(np.tanh(np.arctanh(mean) + np.array([-half, half])))


@pytest.mark.parametrize("value", [1.0, 0.5, 0.0])
def test_equal_values_have_no_interval(value):
    """Of five nets of which one in ten slips all five are alike in 59 of 100: no interval without width covers that."""
    for found in (
        headline("loss", [value] * 5),
        headline("loss", [value] * 5, 0),
        bounded_headline("", [value] * 5, 0, 1),
    ):
        assert found.value == value and math.isnan(found.low) and math.isnan(found.high)
    assert math.isnan(bounded_headline("accuracy", [0.5], 0, 1).low)


def test_a_geometric_mean_is_student_s_of_the_logarithm():
    found = geometric_headline("loss", [1.0, 10.0, 100.0])
    logs = headline("loss", [0.0, 1.0, 2.0])
    assert [found.value, found.low, found.high] == pytest.approx([10**end for end in (1.0, logs.low, logs.high)])
    with pytest.raises(ValueError, match=r"^loss: got 0\.0, expected values above 0$"):
        geometric_headline("loss", [0.0, 1.0])


def test_no_interval_goes_below_what_there_can_be():
    found = headline("barrier", [0.0, 0.0, 0.9], least=0)
    assert found.low == 0 and found.high == headline("barrier", [0.0, 0.0, 0.9]).high


@pytest.mark.parametrize(("only_a", "only_b"), [(6, 0), (5, 0), (9, 1), (9, 2), (20, 9), (10, 10), (0, 7)])
def test_a_paired_interval_excludes_0_only_where_mcnemar_s_exact_test_rejects(only_a, only_b):
    a = [True] * only_a + [False] * only_b + [True] * 20 + [False] * 50
    b = [False] * only_a + [True] * only_b + [True] * 20 + [False] * 50
    found = paired_headline("collapsed", a, b)
    rejected = binomtest(only_a, only_a + only_b).pvalue <= 0.05
    assert rejected or found.low <= 0 <= found.high
    assert found.value == pytest.approx(np.mean(a) - np.mean(b)) and found.low < found.value < found.high


@pytest.mark.parametrize("only", [(0.1, 0.1), (0.02, 0.05), (0.7, 0.0), (0.3, 0.1)])
def test_a_paired_interval_covers_the_difference(only):
    """Of 100 pairs, as many as claims rest on."""
    random, trials, covered, excluded = np.random.default_rng(0), 400, 0, 0
    for _ in range(trials):
        kind = random.choice(3, size=100, p=[*only, 1 - sum(only)])
        found = paired_headline("collapsed", (kind == 0).tolist(), (kind == 1).tolist())
        covered += found.low <= only[0] - only[1] <= found.high
        excluded += found.low > 0 or found.high < 0
    assert covered / trials >= 0.93
    assert excluded / trials <= 0.05 or only[0] != only[1]


def test_nothing_that_differs_gives_no_interval():
    found = paired_headline("collapsed", [True, False], [True, False])
    assert found.value == 0 and math.isnan(found.low)
    with pytest.raises(ValueError, match="shorter"):
        paired_headline("collapsed", [True, False], [True])
