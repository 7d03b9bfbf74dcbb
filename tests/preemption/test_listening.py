"""What a signal does to a job: it notes it, and nothing else; behind the job it is raised once more."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hw1 import preemption
from hw1.lease import hold
from hw1.preemption import Preempted, listening, requested, require
from hw1.stages import at


@pytest.fixture(autouse=True)
def heard():
    """The signals that come to the handlers of before."""
    got = []
    before = {n: signal.signal(n, lambda number, frame: got.append(number)) for n in (15, signal.SIGUSR1, 12)}
    yield got
    for number, handler in before.items():
        signal.signal(number, handler)
    preemption._asked = 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR2"])
def test_a_signal_is_noted_and_raised_once_more_behind_the_job(name, heard):
    number = getattr(signal, name)
    with pytest.raises(Preempted) as left, listening():
        assert not requested() and preemption.is_listening()
        require()
        signal.raise_signal(number)
        assert requested() and heard == []
        at(1, 2)
    assert heard == [number] and not requested() and not preemption.is_listening()
    assert (left.value.number, left.value.code) == (number, 128 + number)
    assert pickle.loads(pickle.dumps(left.value)).number == number and name in str(left.value)
    assert not isinstance(left.value, Exception)  # nobody takes it for a failure


def test_the_engine_s_signal_is_what_submitit_was_told(heard, monkeypatch):
    monkeypatch.setenv(preemption.ENGINE, "USR1")
    with pytest.raises(Preempted), listening():
        signal.raise_signal(signal.SIGUSR2)
        assert heard == [signal.SIGUSR2] and not requested()
        signal.raise_signal(signal.SIGUSR1)
        require()
    monkeypatch.setenv(preemption.ENGINE, "SR1")
    with pytest.raises(ValueError, match="SUBMITIT_PREEMPT_SIGNAL: got 'SR1', expected"), listening():
        pass
    assert not preemption.is_listening()


def test_asked_when_all_is_done(heard):
    """SIGTERM ends the process all the same; the engine's signal would start a job again that has nothing to do."""
    with listening():
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM] and not requested()
    with listening():
        signal.raise_signal(signal.SIGUSR2)
    assert heard == [signal.SIGTERM] and requested()
    with pytest.raises(Preempted), listening():  # the next job of this process does not begin
        raise AssertionError
    assert heard == [signal.SIGTERM, signal.SIGUSR2]


def test_in_the_command_s_own_process_it_is_ctrl_c(heard):
    with pytest.raises(KeyboardInterrupt), listening(interrupts=True):
        signal.raise_signal(signal.SIGTERM)
        require()
    for number in (signal.SIGTERM, signal.SIGUSR2):
        with pytest.raises(KeyboardInterrupt), listening(interrupts=True):
            signal.raise_signal(number)
    with pytest.raises(KeyboardInterrupt), listening(interrupts=True):
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGTERM)  # at once
        raise AssertionError
    assert heard == [] and not requested()


def test_a_process_that_serves_the_job_leaves_the_signals_to_it(heard):
    with listening():
        if (child := os.fork()) == 0:
            signal.raise_signal(signal.SIGTERM)
            os._exit(7 if not requested() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7 and not requested()


def test_without_a_job_nothing_listens(heard):
    signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM] and not requested()
    thread = threading.Thread(target=lambda: listening().__enter__())
    thread.start()
    thread.join()
    assert not preemption.is_listening()


def test_it_does_not_wait_for_another_process_s_run(tmp_path, heard):
    with hold(tmp_path), pytest.raises(Preempted), listening():
        signal.raise_signal(signal.SIGTERM)
        hold(tmp_path)


def test_a_job_that_fails_all_the_same(heard):
    with pytest.raises(RuntimeError, match="broken"), listening():
        signal.raise_signal(signal.SIGTERM)
        raise RuntimeError("broken")
    assert requested()  # the next job of this process does not begin
    with pytest.raises(Preempted), listening():
        raise AssertionError
    with pytest.raises(KeyboardInterrupt), listening(interrupts=True):
        signal.raise_signal(signal.SIGTERM)
        raise RuntimeError("broken")
    assert not requested()


def test_a_process_that_serves_a_job_ends_with_it():
    """Also where a server forked it, whose number a killed job leaves as its parent's."""
    job = subprocess.Popen([sys.executable, Path(__file__).with_name("served.py")], stdout=subprocess.PIPE, text=True)
    serving = Path(f"/proc/{int(job.stdout.readline())}/stat")
    job.kill()
    job.communicate()
    last = time.monotonic() + 30
    while serving.exists() and serving.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < last
        time.sleep(0.01)
