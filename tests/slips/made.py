"""The folders that slips are typed in: a finished sweep, damaged ones, files that are not what they should be."""

import shutil

import numpy as np
from safetensors.torch import save_file

from hw1.models import Mlp
from hw1.project import start
from made_runs import make_run, make_sweep


def made(place):
    """Fill a folder; returns it."""
    here = place / "here"
    here.mkdir()
    _files(here)
    _project(place / "project")
    run, _ = make_run(here / "multirun", epochs=(3,))
    _complete(make_sweep(here / "multirun", [run], []))
    (here / "multirun" / "hand").rename(here / "multirun" / "tiny")
    _damaged(here)
    return place


def _files(here):
    (here / "notes.txt").write_text("these are notes, not data\n")
    (here / "empty.csv").write_text("")
    (here / "table.csv").write_text("a,b,y\n" + "".join(f"{i},{i * 2},{i % 2}\n" for i in range(40)))
    (here / "words.csv").write_text("a,b,y\n" + "".join(f"word{i},{i},{i % 2}\n" for i in range(40)))
    (here / "empty_folder").mkdir()
    np.save(here / "x.npy", np.zeros((20, 3), dtype=np.float32))
    np.save(here / "y.npy", np.arange(20) % 2)
    np.save(here / "short.npy", np.arange(5) % 2)
    (here / "cut.npy").write_bytes((here / "x.npy").read_bytes()[:100])
    save_file(Mlp((1, 8, 8), 10, hidden=[4]).state_dict(), here / "good.safetensors")
    (here / "cut.safetensors").write_bytes((here / "good.safetensors").read_bytes()[:200])
    (here / "garbage.pt").write_bytes(b"garbage" * 20)
    (here / "multirun").mkdir()
    blocked = here / "multirun" / "blocked"
    blocked.write_text("a file, where a folder is to be\n")


def _project(project):
    start(project)
    conf = project / "conf"
    (project / "broken_model.py").write_text("import package_that_is_not_there\n\n\nclass Net:\n    pass\n")
    (project / "syntax_model.py").write_text("class Net(\n")
    net = "from torch import nn\n\n\nclass Net(nn.Linear):\n    def __init__(self, in_shape, out_features):\n"
    (project / "raising_model.py").write_text(net + "        raise RuntimeError('no luck')\n")
    (project / "shape_model.py").write_text(net + "        super().__init__(3, out_features)\n")
    for name, target in {
        "broken": "broken_model.Net",
        "syntax": "syntax_model.Net",
        "absent": "absent_module.Net",
        "raises": "raising_model.Net",
        "no_class": "raising_model.Nope",
        "wrong_shape": "shape_model.Net",
    }.items():
        (conf / "model" / f"{name}.yaml").write_text(f"_target_: {target}\n")
    (conf / "model" / "bad_yaml.yaml").write_text("_target_: [a\nb: }\n")
    (conf / "dataset" / "broken.yaml").write_text("_target_: broken_model.Net\n")
    first = "# @package _global_\n"
    (conf / "experiment" / "bad_group.yaml").write_text(first + "defaults:\n  - override /modle: mlp\nname: a\n")
    (conf / "experiment" / "no_package.yaml").write_text("defaults:\n  - override /model: mlp\nname: a\n")
    (conf / "experiment" / "list.yaml").write_text(first + "- a\n- b\n")
    (conf / "experiment" / "deep_unknown.yaml").write_text(first + "optimizer:\n  lrr: 3\nname: a\n")


def _complete(sweep):
    file = sweep / "sweep.json"
    file.write_text(file.read_text().replace('"running"', '"complete"'))
    return sweep


def _damaged(here):
    def one(name, change):
        run, _ = make_run(here / "damaged" / name, epochs=(3,))
        sweep = _complete(make_sweep(here / "damaged" / name, [run], []))
        (here / "damaged" / name / "hand").rename(here / "damaged" / f"{name}_")
        (here / "damaged" / name).rmdir()
        folder = (here / "damaged" / f"{name}_").rename(here / "damaged" / name)
        change(folder / "runs" / run.name, folder / "sweeps" / sweep.name)

    def rewrite(file, *pairs):
        text = file.read_text()
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new)
        file.write_text(text)

    def cut(file, size):
        file.write_bytes(file.read_bytes()[:size])

    one("null_seed", lambda run, sweep: rewrite(run / "config.yaml", ("\nseed: 0", "\nseed: null")))
    one("cut_config", lambda run, sweep: cut(run / "config.yaml", 103))
    one(
        "tag",
        lambda run, sweep: rewrite(run / "config.yaml", ("\nseed: 0", "\nseed: !!python/object/apply:os.getcwd []")),
    )
    one("self_reference", lambda run, sweep: rewrite(run / "config.yaml", ("\nseed: 0", "\nseed: ${seed}")))
    one("result_list", lambda run, sweep: (run / "result.json").write_text("[1, 2]"))
    one("sweep_cut", lambda run, sweep: cut(sweep / "sweep.json", 100))
    one("sweep_list", lambda run, sweep: (sweep / "sweep.json").write_text("[1, 2]"))
    one("no_weights", lambda run, sweep: shutil.rmtree(run / "snapshots"))
    one("bad_weights", lambda run, sweep: cut(next((run / "snapshots").iterdir()), 50))
