import math

import pytest

from hw1.measures.cache import Cache
from hw1.runs import Sweep
from hw1.settings import ConfigError
from hw1.studies import RandomLabels
from made_classifiers import make_classifier, make_presets
from made_runs import checked, make_run, make_sweep, run_settings

KEYS = ["dataset.corruption", "seed"]


def study(fitted=0.9):
    return RandomLabels(fitted)


@pytest.fixture
def tables(tmp_path):
    """Training accuracies 0.31, 0.62, 0.93, ... (seed 0), 0.1, 0.2, ... (seed 1), of 1 and of 0.5 random labels."""
    folders = []
    for corruption in (0.5, 1.0):
        dataset = run_settings()["dataset"] | {"corruption": corruption}
        for seed in (0, 1):

            def value(name, epoch, member, seed=seed, corruption=corruption):
                if name == "train/accuracy":
                    return epoch * (0.1 if seed else 0.31)
                return 0.1 / corruption + 0.02 * seed

            folders.append(make_classifier(tmp_path, value, seed=seed, dataset=dataset | {"seed": seed}))
    sweep = Sweep.read(make_sweep(tmp_path, folders, KEYS))
    return study().measure(sweep, Cache(tmp_path))


def test_the_table_of_fits(tables):
    fits = tables["fits"].set_index(["dataset.corruption", "seed"])
    for corruption in (0.5, 1.0):
        assert fits["epochs_to_fit"][corruption, 0] == 3 and math.isnan(fits["epochs_to_fit"][corruption, 1])
        assert fits["train/accuracy"][corruption, 0] == pytest.approx(0.93)
        assert fits["test/accuracy"][corruption, 1] == pytest.approx(0.1 / corruption + 0.02)


def test_the_headlines(tables):
    found = {number.name: number for number in study().headlines(tables, KEYS)}
    assert len(found) == 6 and {number.n for number in found.values()} == {2}
    assert found["train_accuracy corruption=1"].value == pytest.approx(0.615)
    assert found["test_accuracy corruption=1"].value == pytest.approx(0.11)
    assert found["test_accuracy corruption=0.5"].value == pytest.approx(0.21)
    assert found["share_fitted corruption=0.5"].value == 0.5


def test_presets_of_one_size_are_not_averaged(tmp_path):
    def value(name, seed, metric, epoch, member):
        return epoch * 0.31 + 0.01 * seed if name == "mlp_tanh" else 0.5 + 0.2 * seed

    sweep = make_presets(tmp_path, value)
    tables = study().measure(sweep, Cache(tmp_path))
    assert tables["fits"]["epochs_to_fit"].isna().tolist() == [True, True, False, False]
    found = {number.name: number for number in study().headlines(tables, sweep.keys)}
    assert len(found) == 6 and {number.n for number in found.values()} == {2}
    assert found["train_accuracy 4 (310 parameters), model=mlp_relu"].value == pytest.approx(0.6)
    assert found["test_accuracy 4 (310 parameters), model=mlp_tanh"].value == pytest.approx(0.935)
    (figure,) = study().draw(tables, sweep.keys).values()
    assert [len(axes.lines) for axes in figure.axes] == [4, 4] and "n = 2" in figure.get_suptitle()


def test_loss_and_accuracy_side_by_side(tables):
    (figure,) = study().draw(tables, KEYS).values()
    assert [axes.get_ylabel().split()[0] for axes in figure.axes] == ["loss", "accuracy"]
    assert "training labels shuffled: 50%, 100%; test labels true" in figure.get_suptitle()
    assert [len(axes.lines) for axes in figure.axes] == [4, 4]


def test_true_labels_alone_are_refused():
    random = checked(dataset=run_settings()["dataset"] | {"corruption": 0.5})
    study().check([checked(), random], KEYS)
    with pytest.raises(ConfigError, match=r"^dataset\.corruption: got 0, expected a fraction of random labels above 0"):
        study().check([checked()], [])


@pytest.mark.parametrize("fitted", [0, -0.5, 1.5, math.nan])
def test_bad_thresholds_are_refused(fitted):
    with pytest.raises(ValueError, match=rf"^fitted: got {fitted}, expected a training accuracy above 0 and at most 1"):
        study(fitted)


def test_no_complete_run_is_no_table(tmp_path):
    sweep = Sweep.read(make_sweep(tmp_path, [make_run(tmp_path, status="failed")[0]], []))
    assert study().measure(sweep, Cache(tmp_path)) == {}
