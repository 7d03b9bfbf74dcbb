"""Jobs of submitit on this machine end when nobody waits for them any more."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from hw1 import preemption
from hw1.lease_file import started
from hydra_plugins.hw1_launcher.submitit_local import LocalJob


class Ended(Exception):
    """In place of the end of this process."""


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """The thread of a job that watches this process and a `command`; its exit code when it ends."""

    def end(code):
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)

    def watch(command, controller=None):
        job, codes = LocalJob(str(tmp_path), "", 0, 0, [], command=command), []

        def run():
            try:
                job._watch(os.getppid() if controller is None else controller)
            except Ended as ended:
                codes.extend(ended.args)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread, codes

    return watch


def ended(watched):
    thread, codes = watched
    thread.join(20)
    return codes


def test_a_job_ends_with_its_command_however_that_ended(watched):
    command = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    thread, codes = watched((command.pid, started(command.pid)))
    thread.join(0.5)
    assert thread.is_alive()
    command.kill()
    assert ended((thread, codes)) == [143]  # before anybody has waited for it
    command.wait()
    assert ended(watched((os.getpid(), "when another process had this number"))) == [143]


def test_a_job_ends_when_it_is_told_to_and_with_what_started_it(watched, tmp_path):
    here = os.getpid(), started(os.getpid())
    assert ended(watched(here, controller=-1)) == [143]
    thread, codes = watched(here)
    thread.join(0.5)
    assert thread.is_alive()
    (tmp_path / "end").touch()
    assert ended((thread, codes)) == [143]


@pytest.mark.parametrize(
    ("executor", "number", "again"), [("local", "TERM", False), ("local", "USR2", True), ("slurm", "TERM", True)]
)
def test_on_this_machine_only_the_engine_s_signal_starts_a_job_again(executor, number, again, monkeypatch):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", executor)
    monkeypatch.setattr(preemption, "_asked", getattr(signal, f"SIG{number}"))
    assert preemption.is_requeued() is again


def test_the_time_from_the_signal_to_the_end_reaches_submitit(tmp_path, monkeypatch, recwarn):
    local = pytest.importorskip("submitit.local.local", reason='pip install "hw1[submitit]"')
    from hydra_plugins.hw1_launcher.submitit_local import SubmititLocalLauncher

    given = []
    monkeypatch.setattr(local, "start_controller", lambda **said: given.append(said) or subprocess.Popen(["true"]))
    made = SubmititLocalLauncher(
        mem_gb=1, submitit_folder=str(tmp_path), array_parallelism=1, cpus_per_task=1, gpus_per_node=0, timeout_min=7,
        max_num_timeout=1, signal_delay_s=77, name="x", stderr_to_stdout=False,
    )  # fmt: skip
    job = made._started(LocalJob(str(tmp_path), "", 0, 0, [], command=(os.getpid(), "")), None, 0)
    job._process.wait()
    assert [(said["signal_delay_s"], said["timeout_min"]) for said in given] == [(77, 7)] and not recwarn.list
