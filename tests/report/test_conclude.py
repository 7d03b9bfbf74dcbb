import base64
import html
import json
import re
import shlex
from urllib.parse import unquote

import pandas as pd
import pytest

from hw1.report.conclude import conclude, digest, earlier
from hw1.report.page import page as page_of
from hw1.runs import Sweep
from hw1.studies import FlatnessInterp
from hw1.studies.answers import Answer
from made_runs import make_run, make_sweep

STUDY = {
    "_target_": "hw1.studies.FlatnessInterp",
    "pair_by": "dataset.batch_size",
    "start": -1.0,
    "stop": 2.0,
    "points": 7,
}


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """(folder of a sweep of two batch sizes, folders of its runs), from the folder that a user stands in."""
    monkeypatch.chdir(tmp_path)
    folders = [make_run(tmp_path, batch_size)[0] for batch_size in (16, 64)]
    return make_sweep(tmp_path, folders, ["dataset.batch_size"], study=STUDY), folders


def record(folder):
    return json.loads((folder / "sweep.json").read_text())


def test_the_end_of_a_sweep(sweep):
    folder, _ = sweep
    lines = conclude(folder)
    tables = {"interpolation.csv", "barriers.csv", "networks_trained.csv", "runs.csv"}
    names = {*tables, "interpolation.png", "interpolation.svg", "report.html"}
    assert names <= {path.name for path in folder.iterdir()} and set(record(folder)["files"]) == names
    assert record(folder)["status"] == "complete" and len(record(folder)["digest"]) == 64
    (headline,) = [line for line in lines if line.startswith("barrier")]
    barrier = pd.read_csv(folder / "barriers.csv").query("split == 'test'")["barrier"].item()
    assert f"= {barrier:.4g} (no interval), n = 1" in headline
    assert {line.partition(": ")[2] for line in lines if re.match("figure|table|report", line)} == {
        f"hand/sweeps/{folder.name}/{name}" for name in names if not name.endswith(".svg")
    }
    page = (folder / "report.html").read_text()
    (image,) = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    assert base64.b64decode(image) == (folder / "interpolation.png").read_bytes()
    assert lines[0].startswith(
        "Between the small-batch solution (16) and the large-batch solution (64) stands a barrier"
    )
    assert lines[0] in page and headline.split(" = ")[0] in page and "python train.py experiment=hand" in page
    assert not re.search(r"(src|href)=[\"']https?:", page)  # readable without a network
    assert list(folder.glob("events.out.tfevents.*"))


def test_the_same_sweep_again_is_known(sweep, tmp_path):
    folder, folders = sweep
    base = tmp_path / "hand"
    asked = record(folder)
    assert earlier(base, digest(base, asked)) == []
    lines = conclude(folder)
    assert earlier(base, digest(base, asked)) == lines
    assert earlier(base, digest(base, {**asked, "study": {**STUDY, "points": 13}})) == []
    (folder / "barriers.csv").rename(folder / "mine.csv")
    assert earlier(base, digest(base, asked)) == []
    (folder / "mine.csv").rename(folder / "barriers.csv")
    weights = folders[0] / "snapshots" / "epoch=000003.safetensors"
    weights.write_bytes((folders[0] / "snapshots" / "epoch=000000.safetensors").read_bytes())
    assert earlier(base, digest(base, asked)) == []


def test_failed_runs_are_named_and_the_rest_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = [make_run(tmp_path, batch_size)[0] for batch_size in (16, 64)]
    bad, _ = make_run(tmp_path, 256, status="failed")
    gone, _ = make_run(tmp_path, 512)
    (gone / "config.yaml").unlink()
    folder = make_sweep(tmp_path, [*good, bad, gone], ["dataset.batch_size"], study=STUDY)
    lines = conclude(folder)
    assert record(folder)["status"] == "failed" and "digest" not in record(folder)
    assert sum(line.startswith("barrier") for line in lines) == 1
    page = (folder / "report.html").read_text()
    assert bad.name in page and "the training loss is nan at step 3" in page
    assert gone.name in page and "it never started" in page
    assert pd.read_csv(folder / "runs.csv")["status"].tolist() == ["complete", "complete", "failed"]


def test_a_run_outside_of_the_results_is_named_and_left_out(tmp_path):
    folder, _ = make_run(tmp_path)
    (folder / "metrics.csv").write_text("epoch,step,train/loss\n0,0,1.0\n")
    path = make_sweep(tmp_path, [folder], ["seed"])
    stray = {"key": "0", "folder": "../../other", "overrides": []}
    there = record(path)
    (path / "sweep.json").write_text(json.dumps(there | {"runs": [*there["runs"], stray]}))
    conclude(path)
    assert record(path)["failed"] == {
        "got a run '../../other', expected the name of a folder in runs": "it was left out"
    }
    assert digest(path.parent.parent, record(path) | {"study": {}}) == digest(
        path.parent.parent, record(path) | {"study": {}, "runs": [*there["runs"], {**stray, "folder": "/other"}]}
    )


def test_too_few_runs_and_no_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good, _ = make_run(tmp_path, 16)
    bad, _ = make_run(tmp_path, 64, status="failed")
    folder = make_sweep(tmp_path, [good, bad], ["dataset.batch_size"], study=STUDY, time="2026-01-01_00-00-01")
    conclude(folder)
    assert record(folder)["failed"]["study"] == "too few complete runs to answer its question"
    assert record(folder)["status"] == "failed" and list(record(folder)["failed"])[1:] == [bad.name]
    folder = make_sweep(tmp_path, [good], [], time="2026-01-01_00-00-02")
    lines = conclude(folder)
    assert not any(line.startswith(("barrier", "study", "figure")) for line in lines)
    assert list(record(folder)["files"]) == ["runs.csv", "report.html"]


def test_the_page_shows_text_as_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of_run, _ = make_run(tmp_path, 16, status="failed")
    result = json.loads((folder_of_run / "result.json").read_text())
    result["error"] = "<script>alert(1)</script> & more\x1b[2J\x00"
    (folder_of_run / "result.json").write_text(json.dumps(result))
    folder = make_sweep(tmp_path, [folder_of_run], [])
    told = record(folder) | {"about": {"title": "ti\x07tle"}}
    (folder / "sweep.json").write_text(json.dumps(told))
    conclude(folder)
    page = (folder / "report.html").read_text()
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more[2J<" in page
    assert "<h1>title</h1>" in page and all(char == "\n" or char.isprintable() for char in page)
    assert "\ninit: independent\n" in page  # the lines of settings are kept


def test_a_command_can_be_pasted_and_links_lead_to_files(tmp_path):
    words = ['model.layers=["c3(10)",p2]', "seed=1,2", "name=it's $HOME"]
    folder = make_sweep(tmp_path, [make_run(tmp_path)[0]], [])
    (folder / "sweep.json").write_text(json.dumps(record(folder) | {"command": words}))
    (folder / "50% #1.png").write_bytes(b"picture")
    text = page_of(Sweep.read(folder), Answer(), {"a?b": pd.DataFrame({"x": [1]})}, ["50% #1.png"], [], {})
    (command,) = re.findall("Made by <code>(.*?)</code>", text)
    assert shlex.split(html.unescape(command)) == ["python", "train.py", *words]
    links = [unquote(html.unescape(link).partition("#")[0]) for link in re.findall('href="(.*?)"', text)]
    assert links == ["50% #1.svg", "a?b.csv"] and not re.search('href="[^"]*[?#]', text)


def test_a_study_that_raises_leaves_a_page(tmp_path, monkeypatch):
    folders = [make_run(tmp_path, size)[0] for size in (16, 64)]
    folder = make_sweep(tmp_path, folders, ["dataset.batch_size"], study=STUDY)

    def broken(*arguments):
        raise RuntimeError("no ink\nleft")

    monkeypatch.setattr(FlatnessInterp, "draw", broken)
    conclude(folder)
    assert record(folder)["failed"] == {"study": "RuntimeError: no ink left"} and record(folder)["status"] == "failed"
    assert "in broken" in record(folder)["traceback"]
    assert "no ink left" in (folder / "report.html").read_text() and len(pd.read_csv(folder / "runs.csv")) == 2


@pytest.mark.parametrize("text", ["[]", "{}", '{"runs": ['])
def test_a_damaged_record_is_no_earlier_result(text, tmp_path):
    folders = [make_run(tmp_path, size)[0] for size in (16, 64)]
    folder = make_sweep(tmp_path, folders, ["dataset.batch_size"], study=STUDY)
    conclude(folder)
    damaged = folder.parent / "2026-12-31_00-00-00"
    damaged.mkdir()
    (damaged / "sweep.json").write_text(text)
    assert earlier(folder.parent.parent, record(folder)["digest"])
    with pytest.raises(ValueError, match=r"sweep\.json (is not|holds)"):
        Sweep.read(damaged)


def test_another_budget_than_the_full_one_is_named(sweep):
    folder, _ = sweep
    (folder / "sweep.json").write_text(json.dumps(record(folder) | {"budget": "quick"}))
    lines = conclude(folder)
    assert lines[0].startswith("budget = quick: ") and lines[1].startswith("Between the small-batch solution (16)")
    for name in ("interpolation", "barriers", "runs"):
        assert set(pd.read_csv(folder / f"{name}.csv")["budget"]) == {"quick"}
    assert "budget = quick" in (folder / "interpolation.svg").read_text()
    assert "budget=quick: " in (folder / "report.html").read_text()
    (number,) = record(folder)["numbers"]
    assert record(folder)["headlines"][0].startswith(f"{number['name']} = {number['value']:.4g} (no interval), n = 1")


def test_a_figure_named_after_an_option_in_a_folder_lies_beside_the_others(sweep, monkeypatch):
    folder, _ = sweep
    draw = FlatnessInterp.draw

    def renamed(self, tables, keys):
        return {f"{name}_model=networks/dense": figure for name, figure in draw(self, tables, keys).items()}

    monkeypatch.setattr(FlatnessInterp, "draw", renamed)
    conclude(folder)
    assert (folder / "interpolation_model=networks-dense.png").is_file() and record(folder)["status"] == "complete"
    assert "interpolation_model=networks-dense" in (folder / "report.html").read_text()
