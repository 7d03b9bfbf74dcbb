"""What studies say in words, of tables made by hand: an assertion only where the interval leaves no alternative."""

import json

import pandas as pd
import pytest

from hw1.measures.cache import Cache
from hw1.report.conclude import answered, trained
from hw1.runs import Sweep
from hw1.studies import (
    ActualTask,
    FlatnessInterp,
    FlatnessSensitivity,
    GradientNormCurves,
    MinRatio,
    ParamsVsGeneralization,
    RandomLabels,
    SimulateFunction,
    WeightTrajectories,
)
from hw1.studies.learned import LOSS_SHARE, MARGIN, TABLE, training
from made_runs import make_run, make_sweep


def said(study, tables, keys):
    """The sentences of a study on networks that have all learned."""
    return " ".join(study.answer(tables, keys, study.headlines(tables, keys)).sentences)


def barriers(heights, sharper=2.0):
    rows = [
        {"seed": seed, "init": "independent", "theta_1": 64, "theta_2": 1024, "split": "test", "barrier": height}
        | {"accuracy_at_0": 0.9, "sharpness/keskar_1e-3_at_0": 1.0, "sharpness/keskar_1e-3_at_1": sharper + seed / 100}
        for seed, height in enumerate(heights)
    ]
    return {"barriers": pd.DataFrame(rows), TABLE: pd.DataFrame([{"train/loss": 0.1, "loss_share": 0.1 / 2.3}])}


def test_a_barrier_stands_or_does_not_or_is_undecided():
    study, keys = FlatnessInterp("dataset.batch_size", -1, 2, 7), ["dataset.batch_size", "seed"]
    high = said(study, barriers([1.2, 1.35, 1.5]), keys)
    assert "Between the small-batch solution (64) and the large-batch solution (1024) stands a barrier of" in high
    assert "1.35 nats [0.977, 1.72] (3 seeds): they lie in different valleys." in high
    assert "the large-batch solution (1024) is 2.01 times" in high and "it is the sharper of the two" in high
    assert "they lie in one valley" in said(study, barriers([0.01, 0.02, 0.015]), keys)
    assert "undecided, n = 3" in said(study, barriers([0.01, 2.0, 0.015]), keys)
    single = said(study, barriers([1.35]), keys)
    assert "1.35 nats (one seed: no interval): nothing follows" in single and "valley" not in single
    flatter = said(study, barriers([1.2, 1.35, 1.5], 0.5), keys)
    assert "it is the flatter of the two" in flatter


def test_what_goes_with_the_batch_size():
    rows = [
        {"dataset.batch_size": size, "x": size, "seed": seed, "test/accuracy": 0.9 - size / 1e4 + seed / 1e4}
        | {"test/loss": (7 * seed + size) % 5, "loss_gap": (3 * seed + size // 32) % 4, "reached": True}
        | {"train/loss": 0.1, "sensitivity/loss": 0.1 + size / 1e3 + seed / 1e3}
        for size in (32, 64, 128, 256, 512)
        for seed in range(3)
    ]
    told = pd.DataFrame([{"name": "sensitivity/loss", "label": "sensitivity of the loss", "unit": "", "error": ""}])
    text = said(
        FlatnessSensitivity("dataset.batch_size"),
        {"points": pd.DataFrame(rows), "measures": told},
        ["dataset.batch_size", "seed"],
    )
    assert "The test accuracy falls with the batch size" in text
    assert "The sensitivity of the loss rises with the batch size" in text
    assert "The test loss shows no settled relation to the batch size" in text


def test_collapsed_nets_are_counted_and_left_out_of_the_loss():
    rows = [
        {"run": "a", "seed": seed, "train/loss": 0.02 if seed < 2 else 1e-3 + 1e-5 * seed, "test/loss": 0.1}
        | {"gradient_norm": 1.0, "norm_follows_loss": 0.6 + seed / 100, "constant": seed < 2}
        for seed in range(10)
    ]
    text = said(GradientNormCurves(10), {"ends": pd.DataFrame(rows)}, ["seed"])
    assert "the smaller the loss, the smaller the gradient" in text
    assert "The median final train loss of networks that did not collapse is 0.00105" in text
    assert "2 of 10 networks collapsed to a constant prediction (share 20% [5.7%, 51.0%])" in text


def test_the_best_classifier_and_the_difference_to_it():
    def curves(spread):
        rows = [
            {
                "model": name,
                "series": name,
                "network_in_words": name,
                "seed": seed,
                "epoch": epoch,
                "split": "test",
                "quantity": "accuracy",
            }
            | {"value": level + spread * (seed if name == "wide" else -seed) - 0.1 * (epoch == 1)}
            for name, level in (("wide", 0.98), ("narrow", 0.97))
            for seed in range(3)
            for epoch in (1, 2)
        ]
        return {"learning_curves": pd.DataFrame(rows)}

    text = said(ActualTask(), curves(1e-4), ["model", "seed"])
    assert text.startswith("The highest test accuracy is that of wide: 98") and "(3 seeds)" in text
    assert "the difference is settled" in text and "points [" in text
    assert "undecided, n = 3" in said(ActualTask(), curves(-8e-3), ["model", "seed"])


@pytest.mark.parametrize(
    ("fitted", "words"),
    [
        ([5, 6, 7], "fits shuffled labels: it comes to 98% of them in each of 3 trainings"),
        ([5, None, 7], "fits shuffled labels in 2 of 3 trainings"),
        ([None] * 3, "has not fitted shuffled labels after 10 epochs (none of 3 trainings came to 98%)"),
    ],
)
def test_random_labels_that_are_not_fitted_are_counted(fitted, words):
    rows = [
        {
            "series": "256-256",
            "network_in_words": "dense",
            "seed": seed,
            "corruption": 1.0,
            "epochs": 10,
            "epochs_to_fit": epochs,
        }
        | {"train/accuracy": 0.99, "test/accuracy": 0.1 + seed / 100, "train/loss": 0.1, "test/loss": 9.0}
        for seed, epochs in enumerate(fitted)
    ]
    text = said(RandomLabels(0.98), {"fits": pd.DataFrame(rows)}, ["seed"])
    assert words in text and "On true test labels it is then right on 11% [" in text
    assert len(RandomLabels(0.98).must_learn(pd.DataFrame({"learned": [False]}), {})) == 0


def test_sizes_and_the_small_nets_that_learn_nothing():
    rows = [
        {
            "run": f"{size}",
            "model.width": size,
            "member": seed,
            "seed": seed,
            "parameters": size,
            "depth": 1,
            "architecture": str(size),
        }
        | {"train/loss": 1 / size, "test/loss": 1 / size + size / 1e4 + seed / 1e6, "gap": size / 1e4 + seed / 1e6}
        | {"train/accuracy": 0.9, "test/accuracy": 0.5 + size / 1e4 + seed / 1e6}
        for size in (236, 1000, 2000, 3000, 4000, 4500)
        for seed in range(3)
    ]
    points = pd.DataFrame(rows)
    table = points[["run", "member"]].assign(learned=points["parameters"] > 236)
    study, keys = ParamsVsGeneralization("parameters"), ["model.width", "seed"]
    text = said(study, {"points": points, TABLE: table}, keys)
    assert "The test accuracy grows with the number of parameters" in text and "at 236" in text
    assert "3 of 18 networks learned nothing: parameters 236." in text
    must = study.must_learn(table, {"points": points})
    assert set(must["run"]) == {"4500"}


def test_where_the_gradient_is_zero():
    def points(converged):
        rows = [
            {"run": "a", "member": i, "phase": "search", "epoch": 1, "loss": 0.01 * i, "constant": i >= converged}
            | {"reason": "converged", "positive": 0.9 - 0.01 * i + 0.001 * (i % 3), "negative": 0.01 * i}
            for i in range(30)
        ]
        table = pd.DataFrame(rows)
        return {"points": table.assign(counted=~table["constant"])}

    few = said(MinRatio(), points(0), [])
    assert "30 of 30 networks are where the gradient is zero" in few and "nothing follows" in few
    many = said(MinRatio(), points(30), [])
    assert "the higher the loss, the fewer directions go up" in many
    assert "the higher the loss, the more directions go down" in many


def test_the_best_fit_and_the_dead():
    rows = [
        {"run": name, "member": i, "network": name, "data": "sinc", "constant": name == "deep" and i == 0}
        | {"train/loss": level * (1 + i / 10), "parameters": 571}
        for name, level in (("deep", 1e-4), ("shallow", 1e-2), ("twin", 1.01e-4))
        for i in range(10)
    ]
    text = said(SimulateFunction(1e-3, 10), {"members": pd.DataFrame(rows)}, ["model.hidden"])
    assert "On sinc deep has the smallest median train loss" in text
    assert "1 of 10 networks deep died: they predict a constant." in text
    shallow = next(part for part in text.split(". ") if part.startswith("shallow"))
    twin = next(part for part in text.split(". ") if part.startswith("twin"))
    assert "the difference is settled" in shallow and "the difference is undecided" in twin


def test_ends_are_held_against_independent_directions():
    def paths(ends):
        rows = [
            {
                "seed": i,
                "weights": "all",
                "called": "all weights",
                "length": 9.0,
                "net": 3.0 + i / 100,
                "to_other_starts": 10.0,
            }
            | {"to_other_ends": ends + i / 100, "ends_over_independent": (ends + i / 100) / 118**0.5}
            for i in range(6)
        ]
        return {"paths": pd.DataFrame(rows), "trajectory_model": pd.DataFrame()}

    study = WeightTrajectories(None, [])
    apart = " ".join(study.answer(paths((10**2 + 2 * 3**2) ** 0.5), ["seed"], []).sentences)
    assert "no nearer to each other than they began" in apart and "each start goes its own way" in apart
    near = " ".join(study.answer(paths(5.0), ["seed"], []).sentences)
    assert "different starts end nearer than they began" in near and "they end nearer than that" in near
    few = study.answer({name: table[:2] for name, table in paths(5.0).items()}, ["seed"], [])
    assert "too few starts to say" in few.sentences[0]


def test_learned_is_what_beats_the_best_constant(tmp_path):
    good, _ = make_run(tmp_path, 16, metrics={"train/loss": 1.0, "train/accuracy": 0.6, "test/loss": 1.0})
    slow, _ = make_run(tmp_path, 32, metrics={"train/loss": 2.1, "train/accuracy": 0.6, "test/loss": 1.0})
    chance, _ = make_run(tmp_path, 64, metrics={"train/loss": 1.0, "train/accuracy": 0.15, "test/loss": 1.0})
    lost, _ = make_run(tmp_path, 128, metrics={"train/loss": float("nan"), "train/accuracy": 0.6, "test/loss": 1.0})
    folder = make_sweep(tmp_path, [good, slow, chance, lost], ["dataset.batch_size"])
    table = training(Sweep.read(folder))
    assert table["learned"].tolist() == [True, False, False, False]
    # digits has ten classes that are nearly even: log 10 nats
    assert table["loss_share"].tolist()[:2] == pytest.approx([1 / 2.3026, 2.1 / 2.3026], rel=1e-3)
    assert table["above_constant"][0] == pytest.approx((0.6 - 0.1) / 0.9, abs=0.01)
    assert LOSS_SHARE == 0.8 and MARGIN == 0.1


def test_under_a_loss_of_another_kind_it_has_to_be_below_the_constants(tmp_path):
    folders = []
    for size, loss in ((16, 1.9), (32, 2.1)):
        folder, _ = make_run(tmp_path, size, metrics={"train/loss": loss, "train/accuracy": 0.6, "test/loss": 1.0})
        record = json.loads((folder / "result.json").read_text()) | {"constant": {"accuracy": 0.1, "other_loss": 2.0}}
        (folder / "result.json").write_text(json.dumps(record))
        folders.append(folder)
    table = training(Sweep.read(make_sweep(tmp_path, folders, ["dataset.batch_size"])))
    assert table["learned"].tolist() == [True, False] and table["loss_share"].tolist() == pytest.approx([0.95, 1.05])


def test_no_answer_from_networks_at_chance(tmp_path):
    study, keys = FlatnessInterp("dataset.batch_size", -1, 2, 7), ["dataset.batch_size"]
    folders = [make_run(tmp_path, size, metrics={"train/loss": 2.2, "test/loss": 2.2})[0] for size in (16, 64)]
    sweep = Sweep.read(make_sweep(tmp_path, folders, keys))
    tables = {**study.measure(sweep, Cache(tmp_path)), TABLE: training(sweep)}
    _, reason = trained(study, sweep, tables)
    answer = answered(study, tables, keys, study.headlines(tables, keys), reason)
    assert answer.too_short == "Too short to answer: 2 of 2 networks are at chance, or little better."
    assert not list(answer.sentences) and answer.captions
