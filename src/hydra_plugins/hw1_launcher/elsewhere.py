"""A job in a process that was not started by the command, perhaps on another machine: it is made to be as if it was.

Hydra imports this file at every start: it stays free of torch.
"""

import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hw1.lease_file import ENDED, started
from hw1.workers import WorkerLostError, portable

_WATCH = "end with who started this process"  # name of a thread
_POLL = 0.1  # seconds between its looks


def place() -> dict[str, Any]:
    """What a worker elsewhere needs to be as this process: variables, folder, and where modules are found."""
    told = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "CUDA_", "ROCR_"))}
    return {"environment": told, "folder": os.getcwd(), "path": [str(Path(one or ".").absolute()) for one in sys.path]}


def job_of(here: dict[str, Any]) -> Callable[[Any, Any], Any]:
    """A function that travels by value: what it imports is found only when it has set the path."""

    def job(work: Any, given: Any) -> Any:
        import sys

        sys.path[:0] = [path for path in here["path"] if path not in sys.path]
        from hydra_plugins.hw1_launcher.elsewhere import in_worker

        return in_worker(work, given, here)

    return job


# Inside a worker


class _Lines(io.TextIOBase):
    """What a job prints, kept by whole lines."""

    def __init__(self, stream: str, kept: list[tuple[str, str]]) -> None:
        self._stream, self._kept, self._rest = stream, kept, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        self._kept += [(self._stream, line) for line in lines]
        return len(text)

    def end(self) -> None:
        """Keep what has no end."""
        if self._rest:
            self.write("\n")


def in_worker(work: Callable[[Any], bytes], job: Any, here: dict[str, Any]) -> tuple[list[tuple[str, str]], Any]:
    """One job: (its lines, what it came to).

    Args:
        work: what is done.
        job: with what.
        here: see `place`.
    """
    if all(thread.name != _WATCH for thread in threading.enumerate()):
        threading.Thread(target=_watch, name=_WATCH, daemon=True).start()
    told = here["environment"]
    os.environ.update({name: told[name] for name in told if name.startswith("HW1_") or name not in os.environ})
    kept: list[tuple[str, str]] = []
    streams = _Lines("stdout", kept), _Lines("stderr", kept)
    before = signal.signal(signal.SIGINT, lambda *_: signal.raise_signal(signal.SIGTERM))  # Ray's cancelling
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            os.chdir(here["folder"])
            result: Any = work(job)
        except SystemExit:  # by SIGTERM; what it was at is saved
            result = WorkerLostError("a worker process was asked to end by SIGTERM")
        except Exception as error:  # it is the caller's to judge
            result = portable(error)
        finally:
            signal.signal(signal.SIGINT, before)
        for stream in streams:
            stream.end()
    return kept, result


def _watch() -> None:
    """Ask this process to save and end when the one that started it has ended; Ray sees that a second later."""
    parent, raylet = os.getppid(), int(os.environ.get("RAY_RAYLET_PID") or os.getppid())
    while os.getppid() == parent and started(raylet) != ENDED:  # it may have ended before this job began
        time.sleep(_POLL)
    os.kill(os.getpid(), signal.SIGTERM)
