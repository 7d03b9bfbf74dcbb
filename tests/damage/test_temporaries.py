"""What killed processes were writing goes when its folder is looked at again, and nothing that somebody writes."""

import os

from hw1.files import remove_left_below, remove_room, replacing, write_text
from hw1.inside import refuse_links
from hw1.lease import hold

ROOM = ".{}.0123456789abcdef.part"


def left(folder, name):
    room = folder / ROOM.format(name)
    room.mkdir(parents=True)
    (room / name).write_text("half")
    (room / ".tmpAb12Cd").write_text("of safetensors")
    return room


def test_in_all_folders_of_an_experiment(tmp_path):
    sweep = tmp_path / "sweeps" / "2026-11-28_12-00-00"
    folders = [tmp_path, tmp_path / "runs", tmp_path / "measurements", sweep]
    rooms = [left(folder, "runs.csv") for folder in folders]
    for name in (".sweep-train.json", ".sweep-measure.json", ".sweep-ended", "sweep.json"):
        (sweep / name).write_text("{}")
    with replacing(sweep / "report.html") as temporary, hold(sweep):
        remove_left_below(tmp_path)  # a command is at work
        assert temporary.exists() and (sweep / ".sweep-train.json").exists()
        temporary.write_text("page")
    remove_left_below(tmp_path)
    assert not any(room.exists() for room in rooms)
    assert {name for name in os.listdir(sweep) if name not in (".lease", ".lock")} == {"sweep.json", "report.html"}
    remove_left_below(tmp_path / "nowhere")


def test_in_a_run_that_is_passed_over(tmp_path):
    run = tmp_path / "runs" / "small-0123456789"
    rooms = [left(run, "result.json"), left(run / "measures", "sharpness-0123456789.json")]
    write_text(run / "a.part" / "own.txt", "the user's")
    with replacing(run / "snapshots" / "epoch=000001.safetensors") as temporary:
        for room in refuse_links(run):
            remove_room(room)
        assert temporary.exists() and not any(room.exists() for room in rooms)
        temporary.write_bytes(b"")
    assert (run / "a.part" / "own.txt").exists()
