"""What stored settings may ask for: themselves. What a run's files hold of the environment: names."""

import json
import os
import time

import pytest
import yaml
from omegaconf import OmegaConf

from hw1 import ConfigError, Run
from hw1.environment import asked_for, hidden, refuse_secrets, stored_settings
from hw1.settings import RunSettings
from hw1.settings.interpolation import as_literal, here, refuse_resolvers, resolved
from hw1.training.contents import begin
from made_runs import make_run, run_settings

WORD = "swordfish-4711"


@pytest.fixture(autouse=True)
def token(monkeypatch):
    monkeypatch.setenv("STRANGE_TOKEN", WORD)


def written(folder, **changes):
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changes, sort_keys=False))
    return file


ASKING = {
    "a variable": "${oc.env:STRANGE_TOKEN}",
    "one inside a text": "x${oc.env:STRANGE_TOKEN}y",
    "one with a default": "${oc.env:STRANGE_TOKEN,none}",
    "one whose resolver's name is a setting": "${${word}:STRANGE_TOKEN}",
    "one whose name is a setting": "${oc.env:${word}}",
    "another resolver": "${oc.select:seed}",
    "with blanks": "${ oc.env : STRANGE_TOKEN }",
    "Hydra's": "${hydra:runtime.cwd}",
}


@pytest.mark.parametrize("text", ASKING.values(), ids=ASKING)
@pytest.mark.parametrize("key", ["name", "output", "word_of_mine"])
def test_what_asks_for_more_than_settings_is_refused(tmp_path, text, key):
    folder, _ = make_run(tmp_path)
    file = written(folder, word="oc.env", **{key: text})
    if "STRANGE_TOKEN}" in text and "{word}" not in text and " " not in text:
        assert WORD in str(OmegaConf.load(file)[key])  # naively
    run = Run(folder)
    if key == "output" and text in ("${oc.env:STRANGE_TOKEN}", "x${oc.env:STRANGE_TOKEN}y"):
        # As this version writes where results went: it stays the text that it is.
        assert run.config.output == run.settings.plain["output"] == text
        return
    for reader in (lambda: run.config, lambda: run.settings):
        with pytest.raises(ConfigError, match=r"config\.yaml: .*asks for more than the settings of this file") as error:
            reader()
        assert WORD not in str(error.value) and "\n" not in str(error.value)


def test_settings_in_records_are_looked_at_too(tmp_path):
    folder, _ = make_run(tmp_path)
    result = json.loads((folder / "result.json").read_text())
    settings = {**run_settings(), "model": {"_target_": "hw1.models.Mlp", "x": ["${oc.env:STRANGE_TOKEN}"]}}
    (folder / "result.json").write_text(json.dumps({**result, "settings": settings}))
    with pytest.raises(ConfigError, match=r"model\.x\.0: got '\$\{oc\.env:STRANGE_TOKEN\}', which asks for more"):
        _ = Run(folder).settings


def test_references_to_settings_are_resolved_as_omegaconf_does():
    settings = {
        "seed": 3,
        "data": {"seed": "${seed}", "twice": "${.seed}", "up": "${..seed}", "list": [1, "${.0}", "${data.list[0]}"]},
        "text": "s${seed}_${data.seed}",
        "group": "${data}",
        "through": "${group.seed}",
        "literal": "\\${seed}",
        "money": "$5 {x}",
    }
    plain = OmegaConf.to_container(OmegaConf.create(settings), resolve=True)
    assert resolved(settings, "f") == plain
    assert OmegaConf.to_container(OmegaConf.create(as_literal(plain)), resolve=True) == plain


LEADING_NOWHERE = {
    "itself": ({"a": "${a}"}, "leads to itself"),
    "each other": ({"a": "${b}", "b": "x${a}"}, "leads to itself"),
    "a group around it": ({"a": {"b": "${a}"}}, "leads to itself"),
    "nothing": ({"a": "${nothing.there}"}, "names no setting"),
    "below a value": ({"a": 1, "b": "${a.c}"}, "names no setting"),
    "empty": ({"a": "${}"}, "names no setting"),
    "above all": ({"a": "${.....b}", "b": 1}, "names no setting"),
    "no end": ({"a": "${b", "b": 1}, "asks for more"),
}


@pytest.mark.parametrize(("settings", "said"), LEADING_NOWHERE.values(), ids=LEADING_NOWHERE)
def test_what_leads_nowhere_is_one_line(settings, said):
    with pytest.raises(ConfigError, match=said) as error:
        resolved(settings, "config.yaml")
    assert str(error.value).startswith("config.yaml: ") and "\n" not in str(error.value)


def test_references_that_double_are_bounded():
    """Thirty lines that say a thousand million characters."""
    settings = {f"a{i}": f"${{a{i + 1}}}${{a{i + 1}}}" for i in range(30)} | {"a30": "ha"}
    assert len(str(OmegaConf.create(settings).a20)) == 2 * 2**10  # naively
    lists = {f"a{i}": [f"${{a{i + 1}}}"] * 2 for i in range(30)} | {"a30": "ha"}
    chain = {f"a{i}": f"${{a{i + 1}}}" for i in range(5000)} | {"a5000": 1}
    begun = time.process_time()
    for one in (settings, lists, chain):
        with pytest.raises(ConfigError, match=r"leads to itself|more than 100,000 characters"):
            resolved(one, "f")
    assert time.process_time() - begun < 3


def test_a_text_that_only_looks_like_one_is_let_through():
    refuse_resolvers({"a": "time: 3", "b": "${seed} at: 4", "c": 5}, "f")


# What is written


def composed(**others):
    return OmegaConf.create({**run_settings(), **others})


def test_a_run_holds_names_of_variables_and_the_values_of_its_keys(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_SCRATCH", f"/scratch/{WORD}")
    monkeypatch.setenv("MY_ACTIVATION", "tanh")
    config = composed(
        output="${oc.env:MY_SCRATCH}/out",
        sweep=f"/scratch/{WORD}/out/hand/sweeps/1/sweep.json",
        logger={"a": {"key": "${oc.env:STRANGE_TOKEN}", "of": "sqlite:///${output}/db"}},
        model={"_target_": "hw1.models.Mlp", "hidden": [4], "activation": "${oc.env:MY_ACTIVATION}", "width": 1},
    )
    plain = OmegaConf.to_container(config, resolve=True)
    assert WORD in yaml.safe_dump(plain)  # naively
    stored = stored_settings(config)
    assert stored["output"] == "${oc.env:MY_SCRATCH}/out"
    assert stored["logger"]["a"] == {"key": "${oc.env:STRANGE_TOKEN}", "of": "sqlite:///${oc.env:MY_SCRATCH}/out/db"}
    assert stored["sweep"] == "${oc.env:MY_SCRATCH}/out/hand/sweeps/1/sweep.json"
    assert stored["model"]["activation"] == "tanh"
    settings = RunSettings.check(plain, stored)
    assert settings.key == RunSettings.check(stored).key and settings.plain["output"] == f"/scratch/{WORD}/out"
    folder = tmp_path / f"run-{settings.key}"
    beside = hidden({"dir": f"/scratch/{WORD}/out"}, asked_for(config))
    begin(folder, settings, [], {".hydra/hydra.yaml": yaml.safe_dump(beside)}, resumed=False)
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert len(files) == 3 and not [file for file in files if WORD in file.read_text()]
    assert Run(folder).config.output == "${oc.env:MY_SCRATCH}/out"
    assert here(Run(folder).settings.plain["output"]) == f"/scratch/{WORD}/out"  # for the user's own alone


SECRETS = [
    "MY_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "DB_PASSWORD",
    "SSH_KEY",
    "api_key",
    "KEY",
    "WANDB_APIKEY",
    "CREDENTIALS",
]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_no_setting_that_a_key_is_made_of(name, monkeypatch):
    monkeypatch.setenv(name, WORD)
    config = composed(model={"_target_": "hw1.models.Mlp", "hidden": [4], "activation": "${.note}", "note": ""})
    config.model.note = f"${{oc.env:{name}}}"
    assert WORD in str(OmegaConf.to_container(config, resolve=True))  # naively
    for check in (refuse_secrets, stored_settings):
        with pytest.raises(
            ConfigError, match=rf"^model\.\w+: got \$\{{oc\.env:{name}\}}, whose name looks like"
        ) as error:
            check(config)
        assert WORD not in str(error.value)
    refuse_secrets(composed(logger={"a": {"key": f"${{oc.env:{name}}}"}}))


@pytest.mark.parametrize("name", ["KEYBOARD", "HW1_DATA", "MONKEY", "AUTHOR", "PWD"])
def test_other_names_are_no_secrets(name, monkeypatch):
    monkeypatch.setenv(name, "x")
    refuse_secrets(composed(model={"_target_": "a.b", "x": f"${{oc.env:{name}}}"}))


def test_the_resolver_is_hydras_again_afterwards(monkeypatch):
    monkeypatch.setenv("MY_SCRATCH", "there")
    config = composed(output="${oc.env:MY_SCRATCH}")
    stored_settings(config)
    assert config.output == "there" and os.environ["MY_SCRATCH"] == "there"


def test_a_command_leaves_no_value_in_any_file(command, tmp_path, monkeypatch):
    """The whole way, through Hydra: its own files, the record of the sweep, tables and the page."""
    out = tmp_path / WORD
    words = ["dataset=digits", "dataset.train_size=60", "model=mlp", "model.hidden=[4]", "trainer.max_epochs=1"]
    words += ["hydra/launcher=basic", "logger=none"]
    made = command(*words, output="${oc.env:MY_OUT}", MY_OUT=str(out))
    assert made.returncode == 0, made.stderr
    files = [file for file in out.rglob("*") if file.is_file()]
    assert len(files) > 8
    left = [file for file in files if WORD in file.read_bytes().decode(errors="replace") and file.name != "run.log"]
    assert left == []
    refused = command(*words, "model.activation=${oc.env:MY_TOKEN}", output=tmp_path / "other", MY_TOKEN=WORD)
    assert refused.returncode == 1 and not (tmp_path / "other").exists()
    lines = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and lines[0].startswith("error: model.activation: got ${oc.env:MY_TOKEN}, whose name looks")
