"""Runs of several machines, each of which is a process here, or a host of its own in a network namespace."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch

from composed import ROOT
from hw1.records import write_record
from hw1.runs import Sweep
from hw1.settings import ConfigError
from hw1.training import distributed_nodes
from hw1.training.distributed_nodes import knock, others_of
from hw1.training.network import meeting_place

from .cases import CASES
from .matrix import words_of

CASE = CASES["ragged last batch"]
TWO = ("trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2")
ONE = ("trainer=ddp", "trainer.devices=2")


def fails(step, rank, how, once):
    own = {"_target_": "distributed.failing.FailsAt", "step": step, "rank": rank, "how": how, "once": once}
    return [f"+callbacks.fails.{key}={value}" for key, value in own.items()]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("HW1_NODES", str(tmp_path / "nodes"))
    return meeting_place()


@pytest.fixture
def environment(place):
    own = {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])}
    return {**os.environ, **own, "HW1_NODE_SECONDS": "60"}


def _hears_ctrl_c():
    """A shell's background jobs ignore it, pytest among them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def node(environment, tmp_path):
    """`node(*before)`: `hw1 node`, another machine; ended behind the test."""
    begun = []

    def begin(*before):
        with (tmp_path / f"node-{len(begun)}").open("w") as log:
            words = [*before, sys.executable, "-m", "hw1", "node"]
            begun.append(
                subprocess.Popen(words, cwd=ROOT, env=environment, stdout=log, stderr=log, preexec_fn=_hears_ctrl_c)
            )
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.wait()


@pytest.fixture
def command(environment, tmp_path):
    """`command(*words)`: exit code and words of a training below `output`; in the background: its process."""

    def run(*words, output="out", before=(), background=False):
        words = [*words_of(CASE), *words, f"output={tmp_path / output}", "hydra/launcher=basic"]
        process = subprocess.Popen(
            [*before, sys.executable, "train.py", *words], cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if background:
            return process
        said, _ = process.communicate(timeout=300)
        return process.returncode, said

    return run


def run_in(folder):
    (run,) = Sweep.read(folder / "default").runs
    return run


def same(one, two):
    assert torch.equal(one.theta(), two.theta()) and one.metrics() == two.metrics()
    assert (one.path / "metrics.csv").read_text() == (two.path / "metrics.csv").read_text()


def slowed(folder, seconds):
    """Words by which every step takes a while; each process writes its number into the folder."""
    own = {"_target_": "distributed.failing.Slow", "seconds": seconds, "folder": folder}
    return [f"+callbacks.slow.{key}={value}" for key, value in own.items()]


def as_on_one_machine(command, folder, words):
    """The run goes on, and comes to what two processes of one machine come to."""
    code, said = command(*TWO, *words)
    assert code == 0, said
    code, said = command(*ONE, *words, output="one")
    assert code == 0, said
    same(run_in(folder / "out"), run_in(folder / "one"))


def wait_until(true, seconds=60):
    last = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < last
        time.sleep(0.05)
    return found


def children(process):
    """Processes that descend from one."""
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(entry)] = int(parent)
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process}


@pytest.mark.slow
def test_processes_of_two_machines_train_what_those_of_one_do(node, command, tmp_path):
    """Four, with dropout, of which each has its own; a machine serves one run after the other."""
    machine = node()
    own = ["seed=1,2", "model.dropout=0.3", "trainer=ddp"]
    code, said = command(*own, "trainer.devices=2", "trainer.num_nodes=2")
    assert code == 0, said
    code, said = command(*own, "trainer.devices=4", output="one")
    assert code == 0, said
    for one, two in zip(*(Sweep.read(tmp_path / name / "default").runs for name in ("out", "one")), strict=True):
        same(one, two)
    assert machine.poll() is None and not list((tmp_path / "nodes").iterdir())
    lines = (tmp_path / "node-0").read_text().splitlines()[1:]
    assert len(lines) == 4 and all("processes 2 to 3" in line for line in lines[::2]), lines


@pytest.mark.slow
def test_a_machine_that_is_lost_fails_the_run_which_goes_on_with_another(node, command, tmp_path):
    first, slow = node(), [*slowed(tmp_path, 0.05), "trainer.checkpoint_seconds=0"]
    training = command(*TWO, *slow, background=True)
    wait_until(lambda: list((tmp_path / "out").rglob("last.ckpt")))
    first.kill()
    begun = time.monotonic()
    said, _ = training.communicate(timeout=60)
    assert training.returncode == 1 and time.monotonic() - begun < 30
    (result,) = (tmp_path / "out").rglob("result.json")
    error = json.loads(result.read_text())["error"]
    assert re.search(
        r"process 1 of 2 \(from 0, on [\w.-]+\) failed: that machine has ended, or answers no longer$", error
    ), said
    node()
    as_on_one_machine(command, tmp_path, slow)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "reason"), [("raises", "ValueError: the disk"), ("killed", "by SIGKILL")])
def test_a_process_of_another_machine_that_fails(how, reason, node, command, tmp_path):
    machine, begun = node(), time.monotonic()
    code, said = command(*TWO, *fails(10, 1, how, tmp_path / "once"))
    assert code == 1 and time.monotonic() - begun < 60
    (result,) = (tmp_path / "out").rglob("result.json")
    error = json.loads(result.read_text())["error"]
    assert re.search(r"process 1 of 2 \(from 0, on [\w.-]+\) failed: ", error) and reason in error
    assert machine.poll() is None
    code, said = command(*TWO, *fails(10, 1, how, tmp_path / "once"))  # the same machine serves it again
    assert code == 0, said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_where_the_first_machine_ends_the_others_wait_for_its_next_run(number, node, command, tmp_path):
    machine = node()
    slow = slowed(tmp_path, 0.05)
    training = command(*TWO, *slow, background=True)
    served = int(wait_until(lambda: (tmp_path / "1").exists() and (tmp_path / "1").read_text()))
    assert served in children(machine.pid)
    training.send_signal(number)
    training.communicate(timeout=60)
    wait_until(lambda: served not in children(machine.pid), 30)
    as_on_one_machine(command, tmp_path, slow)


@pytest.mark.slow
def test_ctrl_c_ends_a_machine_that_serves_and_its_processes(node, command, tmp_path):
    machine = node()
    training = command(*TWO, *slowed(tmp_path, 0.3), background=True)
    served = int(wait_until(lambda: (tmp_path / "1").exists() and (tmp_path / "1").read_text()))
    machine.send_signal(signal.SIGINT)
    assert machine.wait(15) == 130
    assert not os.path.exists(f"/proc/{served}")
    said, _ = training.communicate(timeout=60)
    assert training.returncode == 1 and "that machine has ended, or answers no longer" in said


def _ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def hosts():
    """Two hosts with a cable between them: the words before a command that is to run on each; `unplug()`."""
    names = [f"hw1-{os.getpid()}-{one}" for one in "ab"]
    ends = [f"hw1{os.getpid() % 10**6}{one}" for one in "ab"]
    try:
        for name in names:
            if shutil.which("ip") is None or _ip("netns", "add", name).returncode:
                pytest.skip("needs root, and iproute2, for network namespaces")
        made = _ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", ends[1], "netns", names[1])
        assert made.returncode == 0, made.stderr
        for number, (name, end) in enumerate(zip(names, ends, strict=True), 1):
            for words in (f"addr add 10.83.0.{number}/24 dev {end}", f"link set {end} up", "link set lo up"):
                assert _ip("-n", name, *words.split()).returncode == 0
        yield (
            [("ip", "netns", "exec", name) for name in names],
            lambda: _ip("-n", names[1], "link", "set", ends[1], "down"),
        )
    finally:
        for name in names:
            _ip("netns", "del", name)


@pytest.mark.slow
def test_two_hosts_with_a_network_between_them(hosts, node, command, tmp_path):
    (here, there), _ = hosts
    node(*there)
    code, said = command(*TWO, before=here)
    assert code == 0, said
    assert "processes 1 to 1 (from 0) of the run at 10.83.0.1" in (tmp_path / "node-0").read_text()
    code, said = command(*ONE, output="one")
    assert code == 0, said
    same(run_in(tmp_path / "out"), run_in(tmp_path / "one"))


@pytest.mark.slow
def test_a_host_that_falls_silent_is_lost_within_30_seconds(hosts, node, command, tmp_path):
    (here, there), unplug = hosts
    machine = node(*there)
    training = command(*TWO, *slowed(tmp_path, 0.3), before=here, background=True)
    served = int(wait_until(lambda: (tmp_path / "1").exists() and (tmp_path / "1").read_text()))
    unplug()
    begun = time.monotonic()
    said, _ = training.communicate(timeout=60)
    assert training.returncode == 1 and time.monotonic() - begun < 30
    assert "that machine has ended, or answers no longer" in said
    wait_until(lambda: served not in children(machine.pid), 30)  # which has lost the first, in its eyes


def test_machines_that_do_not_come(place, monkeypatch):
    monkeypatch.setenv("HW1_NODE_SECONDS", "1")
    begun = time.monotonic()
    with (
        pytest.raises(
            ConfigError, match=r"^trainer.num_nodes: got 3, but 2 more machines did not come.*hw1 node"
        ) as one,
        others_of("0123456789", 2),
    ):
        pytest.fail("nobody came")
    assert 1 <= time.monotonic() - begun < 5 and "\n" not in str(one.value)
    assert not list(place.iterdir())


def test_a_machine_comes_and_one_more_is_sent_away(place):
    """What each sends reaches the other; one that comes later is told, or finds no door."""
    sent = []

    def come():
        (announced,) = wait_until(lambda: list(place.glob("*.json")))
        nodes = [knock(announced), knock(announced)]
        sent.extend(node.connection.recv() for node in nodes if node is not None)

    thread = threading.Thread(target=come)
    thread.start()
    with others_of("0123456789", 1) as (node,):
        node.connection.send("work")
        thread.join(30)
        assert node.name and node.here and not list(place.iterdir())
    assert sent.count("work") == 1 and set(sent) <= {"work", ("go", "it has the machines that it needs")}


def test_one_that_came_and_has_gone_again_is_not_counted(place):
    come = []

    def knocks():
        (announced,) = wait_until(lambda: list(place.glob("*.json")))
        first = knock(announced)
        time.sleep(0.3)  # it is waited for one more
        first.close()
        come.extend([knock(announced), knock(announced)])

    thread = threading.Thread(target=knocks)
    thread.start()
    with others_of("0123456789", 2) as nodes:
        thread.join(30)
        for node in nodes:
            node.connection.send("work")
        assert [one.connection.recv() for one in come] == ["work", "work"]


def test_an_announcement_that_the_user_has_not_signed_is_not_obeyed(place):
    door = socket.create_server(("127.0.0.1", 0))
    told = {"format": 1, "addresses": ["127.0.0.1"], "port": door.getsockname()[1], "secret": "00" * 32}
    (place / "a.json").write_text(json.dumps(told))
    assert knock(place / "a.json") is None
    door.settimeout(0.2)
    with pytest.raises(TimeoutError):
        door.accept()  # nobody has come
    door.close()


def test_a_door_behind_which_nobody_answers_is_left_in_time(place):
    """Its port was another program's by then."""
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as web:
        for number, door in enumerate((silent, web)):
            told = {"addresses": ["127.0.0.1"], "port": door.getsockname()[1], "secret": "00" * 32}
            write_record(place / f"{number}.json", told)

        def serve():
            line, _ = web.accept()
            line.sendall((20).to_bytes(4, "big") + b"400 Bad Request\r\n\r\n!")
            line.close()

        threading.Thread(target=serve, daemon=True).start()
        begun = time.monotonic()
        assert knock(place / "1.json") is None  # what is no challenge
        assert knock(place / "0.json") is None
        assert time.monotonic() - begun < 15


def test_who_does_not_know_the_secret_is_not_let_in_and_keeps_nobody_waiting(place, tmp_path):
    """One that is silent, one that says anything, one with another secret; nothing of theirs is unpickled."""
    come, silent = [], []

    def knocks():
        (announced,) = wait_until(lambda: list(place.glob("*.json")))
        told = json.loads(announced.read_text())
        silent.append(socket.create_connection(("127.0.0.1", told["port"])))
        with socket.create_connection(("127.0.0.1", told["port"])) as line:
            line.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
        other = {key: value for key, value in told.items() if key != "sha256"} | {"secret": "00" * 32}
        write_record(tmp_path / "other.json", other)
        come.append(knock(tmp_path / "other.json"))
        come.append(knock(announced))

    thread = threading.Thread(target=knocks)
    thread.start()
    with others_of("0123456789", 1) as nodes:
        thread.join(30)
        assert len(nodes) == 1 and come[0] is None and come[1] is not None
    silent[0].close()


def test_a_machine_that_would_train_otherwise_is_sent_away(place, monkeypatch):
    """With other versions, or another source of hw1; it is told why."""
    own, heard = dict(distributed_nodes.versions_here()), []

    def come():
        (announced,) = wait_until(lambda: list(place.glob("*.json")))
        heard.append(knock(announced).connection.recv())

    thread = threading.Thread(target=come)
    there = {**own, "torch": "1.13.1"}
    known = lambda: there if threading.current_thread() is thread else own  # noqa: E731
    monkeypatch.setattr(distributed_nodes, "versions_here", known)
    monkeypatch.setenv("HW1_NODE_SECONDS", "2")
    thread.start()
    refused = rf"^trainer.num_nodes: got 2, .* has torch 1.13.1, the first {re.escape(own['torch'])}\); expected"
    with pytest.raises(ConfigError, match=refused), others_of("0123456789", 1):
        pytest.fail("it was let in")
    thread.join(30)
    assert heard == [("go", f"this machine has torch 1.13.1, the first {own['torch']}")]
    assert len(own["hw1's source"]) == 16


def test_a_folder_that_others_can_look_into_is_refused(tmp_path, monkeypatch):
    (tmp_path / "nodes").mkdir(mode=0o755)
    monkeypatch.setenv("HW1_NODES", str(tmp_path / "nodes"))
    with pytest.raises(ConfigError, match=r"^HW1_NODES: got .*/nodes, into which others can look, .*chmod 700"):
        meeting_place()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HW1_NODE_SECONDS", "soon", r"^HW1_NODE_SECONDS: got 'soon', expected seconds from 1 to 86400$"),
        ("HW1_NODE_ADDRESS", "203.0.113.9", r"^HW1_NODE_ADDRESS: got '203.0.113.9', expected one of this machine's"),
    ],
)
def test_an_environment_that_says_nothing_of_use_is_refused_before_anything_trains(name, value, said, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=said):
        distributed_nodes.check_nodes()
