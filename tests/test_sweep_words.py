"""Sweeps that are no plain product: zipped keys, and settings that only some of the swept options have."""

import itertools

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from composed import CONF
from hw1.command import normalised, refuse_slips
from hw1.settings import ConfigError
from hw1.slips import left_out
from hydra_plugins.hw1_sweeper.options import Lacking, whole
from hydra_plugins.hw1_sweeper.zipped import combinations, zips

PARSER = OverridesParser.create()
LR, BATCH = "optimizer.lr=0.1,0.2,0.3", "dataset.batch_size=32,64,128"


def parsed(*words):
    return PARSER.parse_overrides(list(words))


def made(value, *words):
    return combinations(parsed(*words), zips(value, parsed(*words)))


@pytest.mark.parametrize("value", [["optimizer.lr", "dataset.batch_size"], [["lr", "batch_size"]]])
def test_zipped_keys_go_side_by_side_and_the_rest_multiplies(value):
    expected = [
        [f"optimizer.lr={lr}", f"dataset.batch_size={size}", "model=mlp", f"seed={seed}"]
        for (lr, size), seed in itertools.product([("0.1", 32), ("0.2", 64), ("0.3", 128)], (0, 1))
    ]
    assert made(value, LR, "model=mlp", "seed=0,1", BATCH) == expected


def test_without_a_zip_the_jobs_are_those_of_hydra():
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    words = parsed(LR, "model=mlp", "model.hidden=[1,2],[3]", "seed=range(3)", "+x='a b',c", "model=rnn", "seed=4,5")
    assert combinations(words, []) == BasicSweeper.split_arguments(words, None)[0]


def test_two_zips_multiply():
    jobs = made([["a", "b"], ["c", "d"]], "a=1,2", "c=5,6", "b=3,4", "d=7,8")
    assert jobs == [[f"a={a}", f"b={a + 2}", f"c={c}", f"d={c + 2}"] for a, c in itertools.product((1, 2), (5, 6))]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (["lr", "seed"], "got other numbers of values .3 of optimizer.lr, 2 of seed., expected as many of each"),
        (["lr", "model.width"], "got model.width, which has one value"),
        (["lr", "momentum"], "got momentum, which is not swept, expected some of: optimizer.lr"),
        (["lr"], "got .'lr'., expected lists"),
        ("lr", "got l, expected lists"),
        ([["lr", "batch_size"], ["seed", "lr"]], "other numbers|got optimizer.lr twice"),
        (["lr", "lr"], "got optimizer.lr twice"),
    ],
)
def test_a_zip_that_cannot_be_is_refused_in_a_line(value, said):
    with pytest.raises(ConfigError, match=said) as refused:
        made(value, LR, BATCH, "seed=0,1", "model.width=2")
    assert str(refused.value).startswith("--zip (hydra.sweeper.zip): ") and "\n" not in str(refused.value)


def test_an_interval_has_no_values():
    with pytest.raises(ConfigError, match=r"optimizer.lr: got interval\(0,1\), expected values"):
        made([], "optimizer.lr=interval(0,1)")


def test_a_zip_is_typed_in_two_ways(tmp_path):
    (tmp_path / "train.yaml").write_text("")
    typed = ["--zip", "lr,batch_size", LR, "--zip=a,b", "--dry-run"]
    refuse_slips(typed, tmp_path)
    assert normalised(typed) == [
        "--multirun", "hydra.sweeper.zip=[[lr,batch_size],[a,b]]", LR, "hydra.sweeper.dry_run=true"
    ]  # fmt: skip
    assert parsed("hydra.sweeper.zip=[[lr,batch_size],[a,b]]")[0].value() == [["lr", "batch_size"], ["a", "b"]]


WORDS = ["model=mlp,rnn", "model.dropout=0.1", "model.hidden=[1,2]", "model.width=1,2", "+model.a=1", "seed=3"]


def test_settings_of_a_swept_group_are_not_put_into_its_default():
    words = normalised(WORDS)[1:]
    assert words == [
        "model=mlp,rnn", "model.dropout=choice(0.1)", "model.hidden=choice([1,2])", "model.width=1,2", "+model.a=1",
        "seed=3",
    ]  # fmt: skip
    assert whole(words, PARSER) == WORDS
    assert normalised(["model=mlp", "model.dropout=0.1"])[1:] == ["model=mlp", "model.dropout=0.1"]


def test_what_some_options_lack_is_said_once_with_their_names():
    lacking, jobs = Lacking(), [["model=mlp", "model.dropout=0.1"], ["model=rnn", "model.dropout=0.1"]]
    assert lacking.note(jobs[1], ValueError("Could not override 'model.dropout'."), "no such setting")
    assert not lacking.note(["seed=1"], ValueError("Could not override 'model.dropout'."), "no such setting")
    (line,) = lacking.lines(jobs)
    assert line.startswith("model.dropout: got 0.1, which model=rnn does not take") and "model=mlp" in line
    assert lacking.lines(jobs[1:]) == ["no such setting"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ""),
        (["callbacks=none"], ""),
        (["callbacks=[swa,default]"], ""),
        (["callbacks=[weight_snapshots,ema]"], ""),
        (["callbacks=swa"], "callbacks=swa: leaves out default (weight_snapshots); callbacks=[default,swa] keeps it"),
        (
            ["callbacks=[ema,lr_monitor]", "model=mlp"],
            "callbacks=[ema,lr_monitor]: leaves out default (weight_snapshots); callbacks=[default,ema,lr_monitor] "
            "keeps it",
        ),
        (
            ["callbacks=[default,swa],ema"],
            "callbacks=ema: leaves out default (weight_snapshots); callbacks=[default,ema] keeps it",
        ),
        (
            ["experiment=gradient_norm", "callbacks=[default,swa]"],
            "callbacks=[default,swa]: leaves out gradient_norm; callbacks=[default,gradient_norm,swa] keeps it",
        ),
        (["experiment=gradient_nrm", "callbacks=swa"], ""),
    ],
)
def test_callbacks_that_are_typed_do_not_silently_replace_others(words, said):
    assert left_out(words, CONF) == said
