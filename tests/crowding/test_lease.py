"""What holds a folder: one process at a time, whatever happens to it, to the locks, to the clock."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hw1 import lease, lease_file
from hw1.files import new_folder, remove_parts, replacing, write_text
from hw1.lease import HeldError, LostError, hold, is_held

HOLDER = """
import sys, time
from pathlib import Path
from hw1.files import write_text
from hw1.lease import LostError, hold
folder = Path(sys.argv[1])
with hold(folder):
    write_text(folder / "by_holder", "first")
    print("held", flush=True)
    try:
        for number in range(10**9):
            write_text(folder / "by_holder", str(number))
            time.sleep(0.01)
    except LostError as error:
        print(error, flush=True)
        sys.exit(1)
"""


@pytest.fixture
def quick(monkeypatch):
    """Leases fall silent after a second."""
    monkeypatch.setenv(lease.SECONDS, "1")


@pytest.fixture
def holder(quick):
    """`holder(folder)` -> a process that holds it and writes into it, once it does."""
    begun = []

    def start(folder):
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", HOLDER, str(folder)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def told(folder):
    return json.loads((folder / lease.LEASE).read_text())


def foreign(folder, **changes):
    """A lease that another machine's process left."""
    with hold(folder):
        found = told(folder)
    found |= {"token": "0" * 32, "state": "held", "host": "elsewhere", "space": "another boot", **changes}
    (folder / lease.LEASE).write_text(json.dumps(found))


@pytest.fixture(params=["locks", "no locks", "locks that hold nobody off"])
def locks(request, monkeypatch):
    """File systems, by what their locks do."""

    def without(lock, timeout=None):
        raise OSError(errno.ENOLCK, "No locks available")

    if request.param != "locks":
        monkeypatch.setattr("filelock.BaseFileLock.acquire", without if request.param == "no locks" else nobody_off)
        monkeypatch.setattr("filelock.BaseFileLock.release", lambda lock, force=False: None)
    return request.param


def nobody_off(lock, timeout=None):
    return type("Held", (), {"lock": lock, "__enter__": lambda self: lock, "__exit__": lambda self, *error: None})()


def test_one_at_a_time_and_then_the_next(tmp_path, locks, quick):
    with hold(tmp_path) as first:
        assert is_held(tmp_path) and not first.succeeds
        for _ in range(2):
            with pytest.raises(HeldError, match="another process holds it"):
                hold(tmp_path, 0)
        write_text(tmp_path / "a", "mine")
    assert not is_held(tmp_path)
    with hold(tmp_path, 0) as second:
        assert not second.succeeds
    assert set(os.listdir(tmp_path)) <= {"a", lease.LEASE, lease.LOCK}


def test_a_killed_holder_makes_way_at_once(tmp_path, holder, monkeypatch):
    process = holder(tmp_path)
    monkeypatch.setenv(lease.SECONDS, "1000")
    process.kill()
    process.wait()
    begun = time.monotonic()
    assert not is_held(tmp_path)
    with hold(tmp_path, 0) as taken:
        assert taken.succeeds and time.monotonic() - begun < 5


def test_a_stopped_holder_is_taken_over_and_writes_nothing_when_it_wakes(tmp_path, holder, figure):
    """Its lock stays locked while it is stopped: the counter alone tells."""
    process = holder(tmp_path)
    process.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    with hold(tmp_path) as taken:
        waited = time.monotonic() - begun
        assert taken.succeeds and waited > 0.9
        remove_parts(tmp_path)  # as `fit` does
        write_text(tmp_path / "by_taker", "mine")
    begun = time.monotonic()
    with hold(tmp_path, 0) as taken:  # the lock is with the stopped one still
        assert not taken.succeeds and time.monotonic() - begun < 0.9
        before = (tmp_path / "by_holder").stat().st_mtime_ns, sorted(os.listdir(tmp_path))
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 1 and said.count("\n") == 1 and "took it over while this one was silent" in said
        assert ((tmp_path / "by_holder").stat().st_mtime_ns, sorted(os.listdir(tmp_path))) == before
        taken.require()
    with hold(tmp_path, 0):
        pass
    figure(f"a stopped holder was taken over after {waited:.1f} s of a patience of 1 s, and wrote nothing")


def test_a_waking_writer_in_the_middle_of_a_write_leaves_nothing(tmp_path, quick):
    """The other's lease, and its sweeping of temporaries, between the last check and the rename."""
    with hold(tmp_path):
        with pytest.raises(LostError), replacing(tmp_path / "a") as temporary:
            temporary.write_text("late")
            foreign_now(tmp_path)
        assert not (tmp_path / "a").exists()
        with pytest.raises(LostError):
            write_text(tmp_path / "b", "later")
    assert not list(tmp_path.glob(".*.part")) and not (tmp_path / "b").exists()
    assert told(tmp_path)["token"] == "1" * 32 and told(tmp_path)["state"] == "held"  # not given back for another


def foreign_now(folder):
    found = told(folder) | {"token": "1" * 32}
    other = folder / "other"
    other.write_text(json.dumps(found))
    os.replace(other, folder / lease.LEASE)


def test_after_the_last_check_the_missing_temporary_stops_the_rename(tmp_path, quick, monkeypatch):
    with hold(tmp_path), pytest.raises(LostError), replacing(tmp_path / "a") as temporary:
        temporary.write_text("late")
        checked = lease.require

        def stalls(path):
            checked(path)
            monkeypatch.setattr(lease, "require", checked)
            foreign_now(tmp_path)
            temporary.unlink()

        monkeypatch.setattr(lease, "require", stalls)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "changes", [{}, {"space": "an older boot"}, {"host": "vm"}, {"pid": 1}, {"counter": "x"}, {"space": ""}]
)
def test_a_silent_lease_of_elsewhere_is_watched_then_taken(tmp_path, changes, quick, capsys):
    foreign(tmp_path, **changes)
    assert is_held(tmp_path)
    begun = time.monotonic()
    with hold(tmp_path, 0) as taken:
        assert taken.succeeds and 0.9 < time.monotonic() - begun < 20
    assert capsys.readouterr().err.count("\n") == 1


def test_a_lease_of_elsewhere_that_counts_is_left(tmp_path, locks, quick, monkeypatch):
    foreign(tmp_path)
    number, seen = 0, lease_file.read

    def counting(file):
        nonlocal number
        number += 1
        found = seen(file)
        return lease_file.Found(**{**vars(found), "raw": bytes([number % 250])}) if found else None

    monkeypatch.setattr(lease, "read", counting)
    with pytest.raises(HeldError):
        hold(tmp_path, 0)


@pytest.mark.parametrize("left", [b"", b"{", b"[]", b"\xff", b'{"token": 1}', b"{}" * 5000])
def test_a_lease_that_is_none_is_watched_then_replaced(tmp_path, left, quick):
    (tmp_path / lease.LEASE).write_bytes(left)
    with hold(tmp_path):
        assert told(tmp_path)["state"] == "held"


def test_links_and_special_files_in_its_place_are_replaced_and_not_followed(tmp_path, quick):
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    for number, plant in enumerate((lambda at: at.symlink_to(victim), os.mkfifo)):
        folder = tmp_path / str(number)
        folder.mkdir()
        plant(folder / lease.LEASE)
        with hold(folder):
            assert stat.S_ISREG((folder / lease.LEASE).lstat().st_mode)
    assert victim.read_text() == "untouched"


@pytest.mark.parametrize("claim", ["dead", "damaged"])
def test_a_claim_that_a_killed_process_left_is_cleared(tmp_path, claim, quick):
    with hold(tmp_path):
        pass
    found = told(tmp_path) | {"state": "held", "start": "1"}  # of a process that is no more
    (tmp_path / ".lease.next").write_text(json.dumps(found) if claim == "dead" else "")
    with hold(tmp_path):
        pass
    assert sorted(os.listdir(tmp_path)) == [lease.LEASE, lease.LOCK]


def test_of_many_takers_exactly_one_wins(tmp_path, locks, quick, figure):
    """Forked, as they import nothing; each counts up a file that nothing but the lease keeps from being torn."""
    foreign(tmp_path)
    (tmp_path / "sum").write_text("0")
    children = []
    for _ in range(4):
        if (child := os.fork()) == 0:
            try:
                for _ in range(3):
                    with hold(tmp_path):
                        number = int((tmp_path / "sum").read_text())
                        time.sleep(0.01)
                        write_text(tmp_path / "sum", str(number + 1))
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    assert (tmp_path / "sum").read_text() == "12"
    figure(f"{locks}: 4 takers at once, 3 times each: one at a time")


def test_the_clock_may_be_set(tmp_path, holder, monkeypatch):
    holder(tmp_path)
    for years in (-30, 30):
        monkeypatch.setattr(time, "time", lambda years=years: 1.8e9 + years * 3.15e7)
        os.utime(tmp_path / lease.LEASE, (time.time(), time.time()))
        assert is_held(tmp_path)
        with pytest.raises(HeldError):
            hold(tmp_path, 0)


def test_a_folder_is_the_last_of_all_after_a_clock_was_set_back(tmp_path):
    (tmp_path / "2099-01-01_00-00-00").mkdir()
    (tmp_path / "notes").mkdir()
    names = [new_folder(tmp_path).name for _ in range(12)]
    assert names == sorted(names) and min(names) > "2099-01-01_00-00-00"


def test_a_watcher_that_was_stopped_itself_has_seen_nothing(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watch = lease_file.Watch()
    found = lease_file.Found(b"x")
    watch.watched(found)
    now = 1000.0
    assert watch.watched(found) <= 1.0


def test_what_cannot_be_written_is_said(tmp_path, monkeypatch):
    def full(lock, timeout=None):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("filelock.BaseFileLock.acquire", full)
    with pytest.raises(OSError, match="No space"):
        hold(tmp_path)
    monkeypatch.setenv(lease.SECONDS, "soon")
    with pytest.raises(ValueError, match="HW1_LEASE_SECONDS: got 'soon', expected seconds"):
        hold(tmp_path)


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o000, 0o666)])
def test_modes_follow_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        with hold(tmp_path):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / lease.LEASE).stat().st_mode) == mode


def test_an_earlier_version_s_lock_is_respected(tmp_path, quick):
    from filelock import FileLock

    with FileLock(tmp_path / lease.LOCK):
        assert is_held(tmp_path)
        with pytest.raises(HeldError):
            hold(tmp_path, 0)
    assert not is_held(tmp_path) and not Path(tmp_path / lease.LEASE).exists()
