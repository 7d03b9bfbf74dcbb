"""Commands in processes forked from this one, which has imported everything once: one costs a second of CPU, not ten.

Each is what `python train.py words...` is: its own id, streams, signals, and the end of an interpreter.
"""

import atexit
import gc
import importlib
import multiprocessing.util
import os
import pickle
import select
import signal
import sys
import tempfile
import threading
import traceback
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 1800  # of wall time that a command may take, on a crowded machine too
_IMPORTED = (
    *("hw1.job", "hw1.training.fit", "hw1.measures.take", "hw1.measures.sensitivity", "hw1.report.conclude"),
    *("hw1.report.page", "hw1.studies", "hw1.plots.style", "hw1.runs.sound", "hw1.__main__", "hydra", "pandas"),
    *("matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "torch.utils.tensorboard"),
)


@dataclass(frozen=True)
class Ended:
    """A command that has ended: exit code (None: it was killed, or took too long), streams, seconds of CPU."""

    code: int | None
    stdout: str
    stderr: str
    seconds: float
    hung: bool = False


def warm(words):
    """Import what commands need, and run one here, in this process, whose results are thrown away."""
    sys.path.insert(0, str(ROOT / "src"))
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")  # pyarrow's, where it is installed
    for name in _IMPORTED:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        ended = command([*words, f"output={folder}"], here=True)
    assert ended == 0, "the undisturbed command failed"
    assert threading.active_count() == len(os.listdir("/proc/self/task")) == 1, "threads do not survive a fork"
    gc.freeze()


def start_server():
    """The server that parallel workers are forked from, once for all commands."""
    from hw1.workers import start_server

    start_server()
    forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None


def command(words, here=False):
    """`python train.py words...`; returns its exit code."""
    from hw1.job import command

    before = signal.getsignal(signal.SIGTERM), sys.argv[:], sys.stdout, sys.stderr, os.dup(1), os.dup(2)
    if here:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
    try:
        command(ROOT, list(words))
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        if here:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(before[4], 1)
            os.dup2(before[5], 2)
            signal.signal(signal.SIGTERM, before[0])
            sys.argv[:], sys.stdout, sys.stderr = before[1:4]


def run(function, *arguments, told=None):
    """`function(*arguments)`, which returns an exit code, in a process of its own.

    Args:
        function: what it does.
        arguments: of it.
        told: called first, in that process.
    """
    streams = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115, they outlive this process's part
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for number, stream in enumerate(streams, 1):
                os.dup2(stream.fileno(), number)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.environ.pop("HYDRA_FULL_ERROR", None)  # which the command that was run here has set
            if told is not None:
                told()
            code = function(*arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            _end(code)
    watched = os.pidfd_open(pid)
    hung = not select.select([watched], [], [], SECONDS)[0]
    if hung:
        os.kill(pid, signal.SIGKILL)
    _, status, used = os.wait4(pid, 0)
    os.close(watched)
    said = []
    for stream in streams:
        stream.seek(0)
        said.append(stream.read().decode(errors="replace"))
        stream.close()
    code = os.waitstatus_to_exitcode(status)
    return Ended(code if code >= 0 else None, *said, used.ru_utime + used.ru_stime, hung)


def asked(function, *arguments):
    """What `function(*arguments)` returns, computed in a process of its own: caches here know nothing of it."""
    with tempfile.NamedTemporaryFile() as file:

        def answer():
            Path(file.name).write_bytes(pickle.dumps(function(*arguments)))
            return 0

        ended = run(answer)
        if ended.code != 0:
            raise RuntimeError(ended.stderr)
        return pickle.loads(Path(file.name).read_bytes())


def _end(code):
    """As an interpreter ends: logs and buffers are flushed."""
    for last in (multiprocessing.util._exit_function, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):
        try:
            last()
        except BaseException:
            traceback.print_exc()
    gc.collect()  # closes what was left open
    os._exit(code)
