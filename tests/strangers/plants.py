"""What a stranger plants in a finished sweep that he hands over: name -> a function of the place."""

import contextlib
import hashlib
import json
import os
import pickle
import shutil
import stat
import struct
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from hw1.records import rewrite_record

TOKEN = "swordfish-7731"  # the value of the victim's variable


@dataclass(frozen=True)
class Place:
    """Folders of a row: the sweep that was handed over, the victim's own, the canary that nothing may make."""

    top: Path

    @property
    def base(self):
        return self.top / "given" / "multirun" / "tiny"

    @property
    def run(self):
        return next((self.base / "runs").iterdir())

    @property
    def sweep(self):
        return next((self.base / "sweeps").iterdir())

    @property
    def mine(self):
        return self.top / "mine"

    @property
    def canary(self):
        return self.top / "mine" / "canary"


def _records(place):
    return [file for file in (place.run / "result.json", place.run / "settings.json") if file.exists()]


def in_settings(place, change):
    """Other settings, in every file of the run that holds them."""
    for file in _records(place):
        record = json.loads(file.read_text())
        if "settings" in record:
            change(record["settings"])
        file.unlink()
        rewrite_record(file, record)
    file = place.run / "config.yaml"
    settings = yaml.safe_load(file.read_text())
    change(settings)
    file.write_text(yaml.safe_dump(settings, sort_keys=False))


def in_record(place, name, change):
    file = {"sweep": place.sweep / "sweep.json", "result": place.run / "result.json"}[name]
    record = json.loads(file.read_text())
    change(record)
    file.unlink()
    rewrite_record(file, record)


def put(settings, path, value):
    *above, last = path.split(".")
    for name in above:
        if not isinstance(settings.get(name), dict):
            settings[name] = {}
        settings = settings[name]
    settings[last] = value


def _touch(place):
    return f"touch {place.canary}"


# name: (target, arguments of it)
TARGETS = {
    "os.system": lambda p: ("os.system", {"command": _touch(p)}),
    "torch.os.system": lambda p: ("torch.os.system", {"command": _touch(p)}),
    "hw1.runs.os.system": lambda p: ("hw1.files.os.system", {"command": _touch(p)}),
    "hw1.runs:os.system": lambda p: ("hw1.files:os.system", {"command": _touch(p)}),
    "subprocess.Popen": lambda p: ("subprocess.Popen", {"args": ["touch", str(p.canary)]}),
    "subprocess.getoutput": lambda p: ("subprocess.getoutput", {"cmd": _touch(p)}),
    "runpy.run_path": lambda p: ("runpy.run_path", {"path_name": str(_script(p))}),
    "torch.load of a pickle": lambda p: ("torch.load", {"f": str(_pickle(p)), "weights_only": False}),
    "torch.hub.load of a folder": lambda p: (
        "torch.hub.load",
        {"repo_or_dir": str(_script(p).parent), "model": "net", "source": "local"},
    ),
    "shutil.rmtree": lambda p: ("shutil.rmtree", {"path": str(p.mine / "precious")}),
    "a module of the current folder": lambda p: ("planted.Net", {}),
    "builtins.eval": lambda p: ("builtins.eval", {"_args_": [f"open({str(p.canary)!r}, 'w')"]}),
    "builtins.exec": lambda p: ("builtins.exec", {"_args_": [f"open({str(p.canary)!r}, 'w')"]}),
    "pathlib.Path.touch": lambda p: ("pathlib.Path.touch", {"_args_": [str(p.canary)]}),
    "hydra.utils.instantiate": lambda p: (
        "hydra.utils.instantiate",
        {"config": {"_target_": "os.system", "command": _touch(p)}},
    ),
    "functools.partial": lambda p: ("functools.partial", {"_args_": ["os.system"]}),
    "pickle.loads": lambda p: ("pandas.read_pickle", {"filepath_or_buffer": str(_pickle(p))}),
    "numpy.load of a pickle": lambda p: ("numpy.load", {"file": str(_pickle(p)), "allow_pickle": True}),
    "urllib.request.urlopen": lambda p: ("urllib.request.urlopen", {"url": "http://127.0.0.1:9/x"}),
    "torch.hub.load_state_dict_from_url": lambda p: (
        "torch.hub.load_state_dict_from_url",
        {"url": "http://127.0.0.1:9/x.pt"},
    ),
    "a network of torchvision with weights": lambda p: ("torchvision.models.resnet18", {"weights": "DEFAULT"}),
}
PLACES = (
    *("model", "model.hidden", "model.activation", "dataset", "dataset.root", "dataset.x", "optimizer", "optimizer.lr"),
    *("scheduler", "loss", "metrics.x", "transform", "callbacks.x", "measures.x", "logger.x", "trainer", "task"),
    *("study", "objective.minimise", "adopted", "seed", "name"),
)


def _script(place):
    folder = place.top / "given" / "hub"
    folder.mkdir(exist_ok=True)
    text = f"open({str(place.canary)!r}, 'w').close()\n"
    (folder / "hubconf.py").write_text(text + "def net(*a, **k):\n    return None\n")
    return folder / "hubconf.py"


class _Evil:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def _pickle(place):
    file = place.top / "given" / "evil.pkl"
    file.write_bytes(pickle.dumps(_Evil(_touch(place))))
    return file


def _node(place, target, path):
    name, arguments = TARGETS[target](place)
    node = {"_target_": name, **arguments}
    in_settings(place, lambda settings: put(settings, path, [node] if path == "model.hidden" else node))


def _value(place, path, value):
    given = value(place) if callable(value) else value
    in_settings(place, lambda settings: put(settings, path, given))


def _config(place, text):
    """Text at the end of config.yaml, in the place of `seed`."""
    for file in _records(place):
        record = json.loads(file.read_text())
        record.pop("settings", None)
        file.unlink()
        rewrite_record(file, record)
    file = place.run / "config.yaml"
    kept = [line for line in file.read_text().splitlines() if not line.startswith("seed:")]
    file.write_text("\n".join([*kept, text]) + "\n")


def _sweep(place, change):
    in_record(place, "sweep", lambda record: change(record, place))


def _result(place, change):
    in_record(place, "result", lambda record: change(record, place))


def _link(place, name, to=None):
    """A link in the place of something of the run's, or of the experiment's."""
    there = place.base / name if name in ("runs", "sweeps") else place.run / name
    target = place.mine / (to or "precious")
    if there.is_dir() and name in ("runs", "sweeps"):
        shutil.move(there, place.mine / name)
        target = place.mine / name
    elif there.is_dir():
        shutil.rmtree(there)
    elif there.exists():
        there.unlink()
    there.symlink_to(target)


def _linked_run(place):
    run = place.run
    moved = place.mine / run.name
    shutil.move(run, moved)
    run.symlink_to(moved)


def _bytes(place, pattern, content):
    """Bytes in the place of a file of the run's."""
    for file in place.run.glob(pattern):
        file.write_bytes(content(place) if callable(content) else content)


def _pipe(place, pattern):
    for file in list(place.run.glob(pattern)):
        file.unlink()
        os.mkfifo(file)


def _unfinished(place, name, content=None):
    """A file in the folder of a run that has not ended, or a pipe in its place."""
    (place.run / "result.json").unlink(missing_ok=True)
    (place.run / name).unlink(missing_ok=True)
    if content is None:
        os.mkfifo(place.run / name)
    else:
        (place.run / name).write_bytes(content)


def _failed_by_a_pipe(place):
    _result(place, lambda record, place: record.update(status="failed", error="x"))
    (place.run / "run.log").unlink(missing_ok=True)
    os.mkfifo(place.run / "run.log")


def _piped_sweep(place):
    for file in (place.base / "sweeps").glob("*/sweep.json"):
        file.unlink()
        os.mkfifo(file)


def _inflating(place):
    file = place.top / "given" / "big.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed, packed.open("archive/data.pkl", "w") as inside:
        for _ in range(64):
            inside.write(bytes(2**20))
    return file.read_bytes()


def _evil_zip(place):
    file = place.top / "given" / "evil.zip"
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("archive/data.pkl", pickle.dumps(_Evil(_touch(place))))
        packed.writestr("archive/version", "3\n")
    return file.read_bytes()


def _offsets(place):
    header = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 10**12]}}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * 16


_MARKUP = "<img src=x onerror=alert(1)>|[x](javascript:alert(1))\x1b]0;owned\x07\x1b[2J"
_BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))


def _words(record, place):
    record["command"] = [_MARKUP, "=cmd|' /C calc'!A0"]
    record["answer"] = [_MARKUP]
    record["name"] = _MARKUP


def _said(record, place):
    record["overrides"] = [_MARKUP]
    record["git"] = _MARKUP
    record["metrics"] = {_MARKUP: 1.0, "=1+1": 2.0, **record["metrics"]}
    record["dataset"] = {**record["dataset"], "name": _MARKUP, "source": _MARKUP}


def _secret_name(place):
    return str(place.mine / "secret.csv")


ENV = "${oc.env:TOKEN}"
PLANTS = {
    # the first table: nodes
    **{f"settings: {name} in model.hidden": partial(_node, target=name, path="model.hidden") for name in TARGETS},
    **{f"settings: os.system in {path}": partial(_node, target="os.system", path=path) for path in PLACES},
    "sweep.json: a study that is os.system": partial(
        _sweep, change=lambda r, p: r.update(study={"_target_": "os.system", "command": _touch(p)})
    ),
    "sweep.json: a study of a planted module": partial(
        _sweep, change=lambda r, p: r.update(study={"_target_": "planted.Net"})
    ),
    "sweep.json: a measure that is os.system": partial(
        _sweep,
        change=lambda r, p: r.update(
            measures=[{"name": "x", "settings": {"_target_": "os.system", "command": _touch(p)}, "key": "x"}]
        ),
    ),
    # interpolations
    **{f"settings: {ENV} in {path}": partial(_value, path=path, value=ENV) for path in ("name", "about.title", "mine")},
    **{
        f"settings: {text} in mine": partial(_value, path="mine", value=text)
        for text in ("${oc.decode:${oc.env:TOKEN}}", "${hydra:runtime.cwd}", "${oc.env:${oc.env:TOKEN}}", "${mine}")
    },
    "sweep.json: ${oc.env:TOKEN} in words": partial(
        _sweep, change=lambda r, p: r.update(command=[ENV], about={"title": ENV})
    ),
    # paths
    **{
        f"sweep.json: a run's folder is {name}": partial(
            _sweep, change=lambda r, p, name=name: r["runs"][0].update(folder=name)
        )
        for name in ("../..", "/etc", "../../../../mine", "..\\x", "", "a\0b")
    },
    "sweep.json: its table lies outside": partial(
        _sweep, change=lambda r, p: r.update(files=["../../../../../mine/secret.csv"])
    ),
    "sweep.json: its tables have sums, outside": partial(
        _sweep, change=lambda r, p: r.update(files={"../../../../../mine/secret.csv": [1, "0"]})
    ),
    "result.json: its file lies outside": partial(
        _result, change=lambda r, p: r.update(files={"../../../../../mine/secret.csv": [1, "0"]})
    ),
    "result.json: its snapshots lie outside": partial(
        _result, change=lambda r, p: r.update(snapshots=["../../../../../mine/secret.csv"])
    ),
    **{
        f"settings: a path of the victim's in {path}": partial(_value, path=path, value=node)
        for path, node in {
            "dataset": lambda p: {"_target_": "hw1.data.Table", "file": _secret_name(p), "target": "word"},
            "dataset.root": lambda p: str(p.mine),
            "output": lambda p: str(p.mine),
        }.items()
    },
    "settings: images of the victim's": partial(
        _value, path="dataset", value=lambda p: {"_target_": "hw1.data.ImageFolder", "folder": str(p.mine / "precious")}
    ),
    "settings: arrays of the victim's": partial(
        _value,
        path="dataset",
        value=lambda p: {
            "_target_": "hw1.data.Arrays",
            **dict.fromkeys(("train_x", "train_y", "test_x", "test_y"), _secret_name(p)),
        },
    ),
    "settings: a set of a hub": partial(
        _value,
        path="dataset",
        value={"_target_": "hw1.data.HuggingFace", "folder": "http://127.0.0.1:9/set", "inputs": "x", "target": "y"},
    ),
    "settings: a set to download": partial(
        _value, path="dataset", value={"_target_": "hw1.data.TorchvisionSet", "set": "SVHN", "size": 32}
    ),
    "settings: a path without a name": partial(
        _value,
        path="dataset",
        value=lambda p: {
            "_target_": "hw1.data.Table",
            "_args_": [None, _secret_name(p), "word", None, "values", None, None, 0.5, 0, False],
        },
    ),
    "settings: a text without a name": partial(
        _value,
        path="dataset",
        value=lambda p: {"_target_": "hw1.data.Characters", "_args_": [_secret_name(p), None, 2, 0.5]},
    ),
    "settings: an address of a logger": partial(
        _value,
        path="logger",
        value={"x": {"_target_": "lightning.pytorch.loggers.MLFlowLogger", "tracking_uri": "http://127.0.0.1:9"}},
    ),
    # links
    **{
        f"a link: {name}": partial(_link, name=name, to=to)
        for name, to in {
            **dict.fromkeys(("run.log", "metrics.csv", "result.json", "config.yaml"), "secret.csv"),
            **dict.fromkeys(("checkpoints", "snapshots", "measures", ".hydra", "runs", "sweeps"), None),
        }.items()
    },
    "a link: the run's folder": _linked_run,
    # markup
    "sweep.json: markup and escapes": partial(_sweep, change=_words),
    "result.json: markup and escapes": partial(_result, change=_said),
    "settings: markup in about": partial(_value, path="about.title", value=_MARKUP),
    "settings: markup in a key": lambda place: in_settings(place, lambda s: s.update({_MARKUP: _MARKUP})),
    "settings: name=../../x": partial(_value, path="name", value="../../x"),
    # pickles and tags
    "a pickle for weights": partial(_bytes, pattern="snapshots/*", content=lambda p: _pickle(p).read_bytes()),
    "a pickle in a checkpoint": partial(_bytes, pattern="checkpoints/*", content=_evil_zip),
    "a pickle for metrics.csv": partial(_bytes, pattern="metrics.csv", content=lambda p: _pickle(p).read_bytes()),
    "YAML: a tag that calls": partial(_config, text="seed: !!python/object/apply:os.system ['touch /tmp/none']"),
    "YAML: a tag of a name": partial(_config, text="seed: !!python/name:os.system"),
    # the second table: sizes
    "YAML: nested anchors": partial(_config, text=_BOMB + "seed: 0"),
    "YAML: 10,000 deep": partial(_config, text="seed: " + "[" * 10_000 + "]" * 10_000),
    "YAML: a reference to itself": partial(_config, text="seed: ${seed}"),
    "YAML: an anchor in itself": partial(_config, text="seed: 0\nx: &x [*x]"),
    **{
        f"settings: {key}: {value!r}": partial(_value, path=key, value=value)
        for key, value in (
            *(("replicas", 10**9), ("seed", None), ("replicas", "x"), ("model.hidden", [10**9, 10**9])),
            *(("trainer.max_epochs", 10**18), ("trainer.threads", 10**6), ("dataset.batch_size", -1), ("model", None)),
        )
    },
    "YAML: an integer to the base of 60": partial(_config, text=f"seed: {'1:' * 200_000}1"),
    "YAML: an integer of 100,000 hexadecimal digits": partial(_config, text=f"seed: 0x{'f' * 100_000}"),
    "settings: 90,000 backslashes": partial(_value, path="about.title", value="\\" * 90_000),
    "settings: members times weights": lambda place: in_settings(
        place, lambda s: s.update(replicas=10_000, model={**s["model"], "hidden": [40_000]})
    ),
    "settings: 50,000 layers": partial(
        _value,
        path="model",
        value={
            "_target_": "hw1.models.mlp_of_budget",
            "budget": 10**8,
            "depth": 50_000,
            "activation": "relu",
            "dropout": 0.0,
        },
    ),
    "a header of safetensors of 90 MB": partial(
        _bytes, pattern="snapshots/*", content=lambda p: struct.pack("<Q", 90_000_000) + b"{" + b" " * 1000
    ),
    "offsets beyond a safetensors file": partial(_bytes, pattern="snapshots/*", content=_offsets),
    "a checkpoint that inflates": partial(_bytes, pattern="checkpoints/*", content=_inflating),
    "a pipe: metrics.csv": partial(_pipe, pattern="metrics.csv"),
    "a pipe: config.yaml": partial(_pipe, pattern="config.yaml"),
    "a pipe: result.json": partial(_pipe, pattern="result.json"),
    "a pipe: a snapshot": partial(_pipe, pattern="snapshots/*"),
    "a pipe: sweep.json": _piped_sweep,
    "a pipe: progress.json": partial(_unfinished, name="progress.json"),
    "a pipe: run.log of a failed run": _failed_by_a_pipe,
    "a pipe beside the records": lambda place: os.mkfifo(place.run / "notes"),
    "progress.json 100,000 deep": partial(_unfinished, name="progress.json", content=b"[" * 100_000),
    "a lease 4,000 deep": partial(_unfinished, name=".lease", content=b"[" * 4000),
    "metrics.csv of one long line": partial(_bytes, pattern="metrics.csv", content=b"a," * 4_000_000),
    "result.json 100,000 deep": partial(_bytes, pattern="result.json", content=b"[" * 100_000),
}


def plant(name, place):
    """Plant it, and make the sums that the run's record holds right again, as somebody with an editor can."""
    PLANTS[name](place)
    result = place.run / "result.json"
    if place.run.is_symlink() or not os.path.lexists(result) or not stat.S_ISREG(result.lstat().st_mode):
        return
    with contextlib.suppress(ValueError, RecursionError):  # a record that is no JSON
        in_record(place, "result", lambda record: record.update(files=_sums(place.run, record.get("files", {}))))


def _sums(run, files):
    """The sums of files as they are now; of what is no file of the run's, what is said."""

    def now(file, said):
        if not stat.S_ISREG(file.lstat().st_mode):
            return said
        return [file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()]

    inside = {name for name in files if ".." not in name and os.path.lexists(run / name)}
    return {name: now(run / name, said) if name in inside else said for name, said in files.items()}
