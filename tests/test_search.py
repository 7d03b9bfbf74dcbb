"""hw1's own sweeper asks Optuna: trials are ordinary runs, the same ones whenever the command is given again."""

import json

import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hw1.runs import Sweep
from hw1.settings import ConfigError
from hw1.studies.overview import Overview, trials_of
from hydra_plugins.hw1_sweeper.searching import Search, Trials, without_intervals

NODE = {"metric": "val/loss", "trials": 12, "batch": 4, "space": {"optimizer.lr": "log(1e-4,1e-1)"}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metric": "test/loss"}, "search.metric: got test/loss.*dataset.val_fraction=0.1, and metric: val/loss"),
        ({"trials": 0}, "search.trials: got 0, expected an integer of at least 1"),
        ({"trials": None}, "search.trials: got no value"),
        ({"batch": True}, "search.batch: got True"),
        ({"direction": "down"}, "search.direction: got 'down', expected minimize or maximize"),
        ({"sampler": "grid"}, "search.sampler: got 'grid', expected tpe or random"),
        ({"space": {}}, "search.space: got {}"),
        ({"workers": 2}, "search.workers: no such setting, expected one of: metric"),
    ],
)
def test_a_search_that_cannot_be_is_refused_in_a_line(change, said):
    with pytest.raises(ConfigError, match=said) as refused:
        Search.of({**NODE, **change}, {})
    assert str(refused.value).startswith("hydra.sweeper.search") and "\n" not in str(refused.value)


def test_typed_intervals_are_the_space():
    words = ["model=mlp", "optimizer.lr=tag(log,interval(1e-4,1e-1))", "model.width=interval(1,4)", "seed=0,1"]
    rest, space = without_intervals(words, OverridesParser.create())
    assert rest == ["model=mlp", "seed=0,1"]
    assert space == {"optimizer.lr": "log(1e-4,1e-1)", "model.width": "interval(1,4)"}
    assert Search.of(NODE, space).space == space


def test_what_is_added_is_searched_with_its_plus():
    words = ["+trainer.gradient_clip_val=interval(0.5,1.0)", "++optimizer.alpha=tag(log,interval(0.1,0.9))"]
    rest, space = without_intervals(words, OverridesParser.create())
    assert not rest
    assert space == {"+trainer.gradient_clip_val": "interval(0.5,1.0)", "++optimizer.alpha": "log(0.1,0.9)"}
    search = Search.of({**NODE, "space": {"optimizer.alpha": "log(1,2)", "optimizer.lr": "log(1,2)"}}, space)
    assert search.keys == ["optimizer.lr", "trainer.gradient_clip_val", "optimizer.alpha"]


@pytest.mark.parametrize("text", ["log(0,1)", "log(1)", "interval(2,1)", "range(1.5,3)", "choice(a)", "normal(0,1)", 3])
def test_a_space_that_says_nothing_is_refused(text):
    pytest.importorskip("optuna", reason="the optional extra `search`")
    with pytest.raises(ConfigError, match=r"search.space: got .* for optimizer.lr .*expected log\(1e-4,1e-1\)"):
        Trials(Search.of({**NODE, "space": {"optimizer.lr": text}}, {}))


SPACE = {"a": "log(1e-4,1e-1)", "b": "interval(2,5)", "c": "range(1,10,3)", "d": "choice([1,2],mlp)"}


def searched(stop=None, values=lambda number, a: (a - 0.01) ** 2):
    """The words of a search's trials; `stop`: of so many batches."""
    trials = Trials(Search.of({**NODE, "space": SPACE}, {}))
    for number, asked in enumerate(trials.batches()):
        if number == stop:
            break
        first = len(trials.values)
        trials.tell([values(first + i, float(words[0].partition("=")[2])) for i, words in enumerate(asked)])
    return trials


def test_a_search_goes_on_as_if_it_had_not_stopped():
    pytest.importorskip("optuna", reason="the optional extra `search`")
    whole = searched()
    assert len(whole.words) == 12 and searched().words == whole.words
    assert searched(stop=2).words == whole.words[:12]  # two batches told, a third asked
    assert searched(stop=1).words == whole.words[:8]
    for a, b, c, d in whole.words:
        assert 1e-4 <= float(a.removeprefix("a=")) <= 0.1 and b in [f"b={n}" for n in range(2, 6)]
        assert c in ("c=1", "c=4", "c=7") and d in ("d=[1,2]", "d=mlp")


def test_what_failed_is_told_as_failed():
    optuna = pytest.importorskip("optuna", reason="the optional extra `search`")
    trials = searched(values=lambda number, a: [None, float("nan"), 0.5][number % 3])
    states = [trial.state for trial in trials._study.trials]
    fail, complete = optuna.trial.TrialState.FAIL, optuna.trial.TrialState.COMPLETE
    assert states == [fail, fail, complete] * 4 and trials.values == [None, None, 0.5] * 4


def test_the_table_of_trials_has_the_best_so_far():
    tried = [
        {"words": [f"a={i}", "d=mlp"], "value": v, "runs": ["r"]} for i, v in enumerate([None, 3, 1, None, 2, 0.5])
    ]
    table = trials_of({"metric": "val/loss", "direction": "minimize", "tried": tried})
    assert table["a"].tolist() == [0, 1, 2, 3, 4, 5] and set(table["d"]) == {"mlp"}
    assert table["best"].fillna(-1).tolist() == [-1, 3, 1, 1, 1, 0.5]
    up = trials_of({"metric": "val/accuracy", "direction": "maximize", "tried": tried})
    assert up["best"].fillna(-1).tolist() == [-1, 3, 3, 3, 3, 3]
    study = Overview()
    (first, *_) = study.answer({"trials": table}, ["a", "d"], []).sentences
    assert first == "Of 6 trials, number 5 has the lowest val loss, 0.500, at a 5, d mlp."
    assert set(study.draw({"trials": table}, ["a", "d"])) == {"search"}


COMMAND = (
    *("dataset=function", "dataset.points=40", "dataset.val_fraction=0.25", "model=mlp_571", "trainer.max_epochs=2"),
    *("logger=none", "hydra/launcher=basic", "callbacks=none", "optimizer.lr=tag(log,interval(1e-3,1e-1))"),
    *("+trainer.gradient_clip_val=interval(0.5,1.0)", "hydra.sweeper.search={metric:val/loss,trials:3,batch:2}"),
)


@pytest.fixture(scope="module")
def commands(tmp_path_factory, in_one_process):
    pytest.importorskip("optuna", reason="the optional extra `search`")
    words = [*COMMAND, f"output={tmp_path_factory.mktemp('search')}"]
    test_set = [word.replace("val/loss", "test/loss") for word in words]
    nothing_held_out = [word for word in words if "val_fraction" not in word]
    ends = in_one_process(
        {
            "dry": [*words, "--dry-run"],
            "test": test_set,
            "none": nothing_held_out,
            "first": words,
            "again": words,
        }
    )
    return words[-1].partition("=")[2], ends


def test_trials_are_runs_and_the_page_tells_them(commands):
    output, ends = commands
    code, _, error = ends["first"]
    assert code == 0, error
    sweep = Sweep.read(f"{output}/default")
    search = sweep.record["search"]
    assert sweep.keys == ["optimizer.lr", "trainer.gradient_clip_val"] and len(sweep.complete().runs) == 3
    rates = [float(trial["words"][0].partition("=")[2]) for trial in search["tried"]]
    assert sorted(run.value("optimizer.lr") for run in sweep.runs) == pytest.approx(sorted(rates))
    by_name = {run.path.name: run for run in sweep.runs}
    for trial in search["tried"]:
        assert trial["value"] == by_name[trial["runs"][0]].metrics()["val/loss"]
        assert 0.5 <= by_name[trial["runs"][0]].value("trainer.gradient_clip_val") <= 1
    assert sorted(sweep.record["trained"]) == sorted(sweep.record["launched"]) == sorted(by_name)
    assert {"trials.csv", "search.png", "report.html"} <= set(sweep.record["files"])
    page, curves = (sweep.path / "report.html").read_text(), pd.read_csv(sweep.path / "learning_curves.csv")
    assert set(curves["split"]) == {"train", "val"} and "The test set is left out: trials are chosen by" in page
    assert "Of 3 trials, number" in (sweep.path / "report.html").read_text()
    assert "hydra.sweeper.search={metric:val/loss,trials:3,batch:2}" in sweep.record["command"]
    assert json.loads((sweep.path / "sweep.json").read_text())["status"] == "complete"


def test_the_same_search_again_has_nothing_to_do(commands):
    _, ends = commands
    code, said, error = ends["again"]
    assert code == 0 and "nothing to do: 3 runs complete" in said, error


def test_before_anything_trains_a_search_is_listed_and_checked(commands):
    _, ends = commands
    assert ends["dry"][0] == 0 and "2 to train" in ends["dry"][1] and "and 1 trial that depend" in ends["dry"][1]
    assert "test set that is searched on" in ends["test"][2] and ends["test"][0] == 1
    assert "expected dataset.val_fraction=0.1 besides" in ends["none"][2] and ends["none"][0] == 1
