"""Names and links in a stranger's folder lead nowhere: each is shown to work the naive way, and refused by hw1."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hw1 import Run, Sweep
from hw1.explaining import explain
from hw1.files import remove_parts, replacing, write_text
from hw1.inside import first_link, inside, is_name, refuse_linked_parts, refuse_links
from hw1.models import Mlp
from hw1.records import DamagedError, read_record
from hw1.report.conclude import conclude
from hw1.report.export import tidy
from hw1.report.listing import listing
from hw1.runs import Ask
from hw1.runs.measured import Measured, beside, write_measured
from hw1.runs.sound import verify
from hw1.runs.weights import snapshot_files
from hw1.training.contents import begin, require
from hw1.training.fit import fit
from hw1.training.snapshots import save_snapshot
from made_runs import checked, make_run, make_sweep

LEADING_OUT = (
    "../secret",
    "/etc/passwd",
    "a/../../secret",
    "..",
    "",
    ".",
    "C:secret",
    "..\\secret",
    "\\\\host\\x",
    "a\0b",
)


@pytest.fixture
def secret(tmp_path):
    """A file of the reader's, beside the output."""
    file = tmp_path / "secret.csv"
    file.write_text("word\nswordfish\n")
    return file


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "out")[0]


def rewritten(folder, **changes):
    """Its sweep.json or result.json with other entries, as a stranger would write them."""
    file = next(folder / name for name in ("sweep.json", "result.json") if (folder / name).exists())
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("name", [*LEADING_OUT, None, 3, ["a"]])
def test_a_stored_name_stays_in_its_folder(tmp_path, name):
    with pytest.raises(DamagedError, match="expected a path below") as error:
        inside(tmp_path, name)
    assert "\n" not in str(error.value) and not is_name(name)


def test_joining_as_such_leaves_the_folder(tmp_path, secret):
    base = tmp_path / "out"
    base.mkdir()
    assert (base / "../secret.csv").read_text() == secret.read_text() and (base / str(secret)).is_file()
    assert inside(base, "measures/a.json") == base / "measures" / "a.json"


@pytest.mark.parametrize("at", ["measures", "measures/a.json"])
def test_no_link_on_the_way_is_followed(tmp_path, secret, at):
    base = tmp_path / "out"
    (base / "measures").mkdir(parents=True)
    if at == "measures":
        (base / "measures").rmdir()
    (base / at).symlink_to(secret if at.endswith("json") else secret.parent)
    assert (base / at).exists()  # followed, if one lets it
    with pytest.raises(DamagedError, match=r"got a link, expected a file or folder: .*remove it$"):
        inside(base, "measures/a.json")


# Every reader of a name in a record


def test_tables_and_figures_of_a_sweep(tmp_path, run, secret):
    sweep = make_sweep(tmp_path / "out", [run], [])
    rewritten(sweep, files=["../../../../secret.csv"], status="complete")
    assert (sweep / "../../../../secret.csv").read_text() == secret.read_text()
    with pytest.raises(DamagedError, match=r"names '../../../../secret\.csv'"):
        _ = Sweep.read(sweep).tables
    assert any("names '../../../../secret.csv'" in line for line in verify(sweep).damage)


def test_caches_of_a_sweep(tmp_path, run):
    sweep = make_sweep(tmp_path / "out", [run], [])
    rewritten(sweep, files={}, caches={"../../secret.csv": [1, "0"]})
    assert any("names '../../secret.csv'" in line for line in verify(sweep).damage)


@pytest.mark.parametrize("name", ["../../../secret", "/etc", "C:x", "..", 3])
def test_runs_of_a_sweep(tmp_path, run, name):
    sweep = make_sweep(tmp_path / "out", [run], [])
    rewritten(sweep, runs=[{"folder": name, "key": "k", "overrides": []}])
    assert Sweep.read(sweep).runs == [] and any("expected the name" in line for line in verify(sweep).damage)


def test_files_of_a_run(tmp_path, run, secret):
    rewritten(run, files={"../../../../secret.csv": [secret.stat().st_size, "0"]})
    assert (run / "../../../../secret.csv").exists()
    assert any("it is not followed" in line for line in verify(run).damage)
    with pytest.raises(DamagedError, match="it is not followed"):
        require(run, {"../../secret": (1, "0")})
    with pytest.raises(DamagedError, match="it is not followed"):
        snapshot_files(run, ["../other/snapshots/epoch=000003.safetensors"])


def test_names_of_measures(tmp_path, run, secret):
    naive = run / "measures" / "../../../../../secret.csv"
    (run / "measures").mkdir()
    assert naive.read_text() == secret.read_text()
    with pytest.raises(DamagedError, match="it is not followed"):
        Ask("../../../../../secret", {}).file(run)
    with pytest.raises(DamagedError, match="it is not followed"):
        beside(run / "measures" / "a-0.json", "../../evil")
    with pytest.raises(DamagedError, match="it is not followed"):
        write_measured(run / "measures" / "a-0.json", Measured("a", "k"), {"../../evil": b"x"})
    assert not (run / "evil").exists()


# Links


@pytest.mark.parametrize(
    "part", ["checkpoints", "snapshots", "measures", ".hydra", "run.log", "metrics.csv", "deep/er"]
)
def test_nothing_is_written_through_a_link_in_a_run(tmp_path, part):
    settings = checked()
    folder = tmp_path / "out" / "hand" / "runs" / f"run-{settings.key}"
    outside = tmp_path / "mine"
    outside.mkdir()
    (folder / part).parent.mkdir(parents=True)
    (folder / part).symlink_to(outside if "." not in part or part == ".hydra" else outside / "file")
    before = sorted(outside.iterdir())
    if part == ".hydra":  # as it was: the writer's folder is the link
        begin(folder, settings, [], {".hydra/config.yaml": "naive"}, resumed=False)
        assert (outside / "config.yaml").read_text() == "naive"
        (outside / "config.yaml").unlink()
    with pytest.raises(DamagedError) as error:
        fit(settings, folder)
    assert explain(error.value) == str(error.value) and str(folder / part) in str(error.value)
    assert sorted(outside.iterdir()) == before and not (folder / "result.json").exists()
    if (folder / "config.yaml").exists():
        with pytest.raises(DamagedError, match="got a link"):
            Run(folder)


@pytest.mark.parametrize("name", ["runs", "sweeps", "measurements", "replaced", ".lock"])
def test_parts_of_an_experiment_are_no_links(tmp_path, run, name):
    base = run.parent.parent
    sweep = make_sweep(tmp_path / "out", [run], [])
    there = base / name
    moved = tmp_path / "elsewhere"
    there.rename(moved) if there.exists() else moved.mkdir()
    there.symlink_to(moved)
    with pytest.raises(DamagedError, match="got a link"):
        refuse_linked_parts(base)
    for reader in (lambda: listing(base, [], None), lambda: tidy(base, []), lambda: conclude(sweep)):
        with pytest.raises(DamagedError, match="got a link"):
            reader()


def test_a_folder_of_runs_that_is_a_link_is_shown_as_damaged(tmp_path, run):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text("name: mine")
    link = run.parent / "link-0123456789"
    link.symlink_to(tmp_path / "mine")
    with pytest.raises(DamagedError, match="got a link"):
        Run(link)
    assert any("damaged" in line and "got a link" in line for line in listing(run.parent.parent, [], None)[0])
    assert any("got a link" in line for line in verify(run.parent.parent).damage)


def test_a_record_that_is_a_link_is_not_read(tmp_path, run):
    other = make_run(tmp_path / "mine", seed=1)[0]
    (run / "result.json").unlink()
    (run / "result.json").symlink_to(other / "result.json")
    assert json.loads((run / "result.json").read_text())["seed"] == 1  # naively
    with pytest.raises(DamagedError, match="a record is never followed"):
        read_record(run / "result.json")


def test_the_users_own_links_to_outputs_are_followed(tmp_path, run):
    make_sweep(tmp_path / "out", [run], [])
    (tmp_path / "scratch").symlink_to(tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "hand").symlink_to(tmp_path / "out" / "hand")
    (tmp_path / "latest").symlink_to(run)
    assert len(Sweep.read(tmp_path / "scratch" / "hand").runs) == len(Sweep.read(tmp_path / "other" / "hand").runs) == 1
    assert Run(tmp_path / "latest").count == 1


def test_links_of_weights_and_biases_are_its_own(run):
    (run / "wandb").mkdir()
    (run / "wandb" / "latest-run").symlink_to(run / "wandb")
    assert first_link(run) is None
    (run / "wandb" / "latest-run").unlink()
    (run / "wandb").rmdir()
    (run / "wandb").symlink_to(run.parent)
    assert first_link(run) == run / "wandb"
    refuse_links(run.parent / "not-there")


# Temporaries


def test_a_link_in_the_place_of_a_guessed_temporary_is_not_written_through(tmp_path):
    mine, file = tmp_path / "mine", tmp_path / "out" / "a.txt"
    file.parent.mkdir()
    mine.write_text("precious")
    guessed = file.with_name(f".a.txt.{os.getpid()}.part")
    guessed.symlink_to(mine)
    guessed.write_text("naive")
    assert mine.read_text() == "naive"
    mine.write_text("precious")
    write_text(file, "new")
    assert (mine.read_text(), file.read_text()) == ("precious", "new")


def test_temporaries_have_other_names_each_time_and_are_private(tmp_path):
    seen = set()
    for _ in range(20):
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("x")
            assert stat.S_IMODE(temporary.parent.stat().st_mode) == 0o700
            seen.add(temporary.parent.name)
    assert len(seen) == 20 and os.listdir(tmp_path) == ["a.txt"]


def test_a_link_that_a_block_left_is_not_put_in_the_place(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("precious")
    with pytest.raises(OSError), replacing(tmp_path / "a.txt") as temporary:
        temporary.unlink()
        temporary.symlink_to(mine)
    assert sorted(os.listdir(tmp_path)) == ["mine"]


def test_a_link_at_the_end_is_replaced(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("precious")
    (tmp_path / "a.txt").symlink_to(mine)
    write_text(tmp_path / "a.txt", "new")
    assert mine.read_text() == "precious" and not (tmp_path / "a.txt").is_symlink()


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        save_file({"a": torch.ones(1)}, tmp_path / "naive.safetensors")
        snapshot = save_snapshot(Mlp((1, 8, 8), 10, hidden=[4]), tmp_path, 0)
        write_text(tmp_path / "a.txt", "x")
        (tmp_path / "plain").write_text("x")
    finally:
        os.umask(before)
    modes = {
        file.name: stat.S_IMODE(file.stat().st_mode) for file in (snapshot, tmp_path / "a.txt", tmp_path / "plain")
    }
    assert stat.S_IMODE((tmp_path / "naive.safetensors").stat().st_mode) == 0o600
    assert set(modes.values()) == {0o666 & ~umask}, modes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_what_a_killed_writer_left_goes_and_what_a_live_one_writes_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("hw1.files._tidied", set())
    read, write = os.pipe()
    child = os.fork()
    if not child:  # dies in the middle
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            os.write(write, b"x")
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    os.close(read), os.close(write)
    assert len(list(tmp_path.glob(".*.part"))) == 1
    with replacing(tmp_path / "b.txt") as temporary:  # of a live one, this process
        monkeypatch.setattr("hw1.files._tidied", set())
        write_text(tmp_path / "c.txt", "x")
        assert [part.name for part in tmp_path.glob(".*.part")] == [temporary.parent.name]
        temporary.write_text("y")
    assert sorted(os.listdir(tmp_path)) == ["b.txt", "c.txt"]


def test_a_runs_leftovers_of_all_versions_go(run):
    (run / "snapshots" / ".epoch=000001.safetensors.77.part").write_text("half")
    (run / f".config.yaml.{'0' * 16}.part").mkdir()
    (run / f".config.yaml.{'0' * 16}.part" / "config.yaml").write_text("half")
    remove_parts(run)
    assert list(run.rglob("*.part")) == []


def test_no_writer_makes_a_temporary_of_its_own():
    """What is written in place of a file goes through `replacing`; anything else says here why it may."""
    may = {
        "files.py": "it is the one",
        "training/contents.py": "it passes them over",
        "records.py": "mkstemp: random, O_EXCL, then linked",
        "training/cost.py": "a private folder of the system's",
        "report/tensorboard.py": "a private folder of the system's",
        "python.py": "a private folder of the system's",
        "data/source.py": "unpacked in a private folder",
        "inside.py": "it names what a killed process left",
        "lease.py": "a claim that is renamed away: random, gone at once",
        "lease_file.py": "says whose the lease is",
        "preemption.py": "which process listens",
        "job.py": "which process is the command",
        "workers.py": "whose child a process is",
    }
    source = Path(sys.modules["hw1"].__file__).parent
    for file in source.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        found = [word for word in ("mkstemp", "mkdtemp", "TemporaryDirectory", '.part"', "getpid()") if word in text]
        assert not found or file.relative_to(source).as_posix() in may, f"{file}: {found}"
