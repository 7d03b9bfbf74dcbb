"""Commands in Python, with the words of the command line: `train`, `plan`, `measure`, `report`. No torch.

A command runs in a process of its own, `hw1.child`. So it is what it is on the command line, and nothing of it stays
behind: no singleton of Hydra's, no handler of a signal, no logging, no thread of torch's. The modules of the user's are
those of today, also where a notebook has imported them before they were edited; a script needs no
`if __name__ == "__main__"`; a training that is killed takes no notebook with it. The price: what is trained must stand
in a module.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from hw1.notebook import Live, Watch, in_notebook
from hw1.runs import Sweep
from hw1.settings import ConfigError

_NOT_HERE = {  # words with which a command trains nothing, and what does the same
    "--dry-run": "hw1.plan(...)",
    "--detach": "the command line",
    **dict.fromkeys(("--help", "-h", "--version", "--hydra-help"), "the command line, or help(hw1.train)"),
    **dict.fromkeys(("--cfg", "-c", "--info", "-i", "--shell-completion", "-sc"), "the command line"),
}
_EVERY = 0.5  # seconds between two looks at how far it has come
_LAST = 3.0  # seconds for what is still in a pipe when the command has ended


def train(*words: str) -> Sweep:
    """Train, measure and draw what a command asks for, as `hw1 train words...`.

    What is finished is reused, what was interrupted goes on from its checkpoints; so the same call again returns at
    once. Runs that fail are named, the others finish: `status` and the table of the sweep say so.

    Args:
        *words: as on the command line, without a shell's quotes: "experiment=flatness_interp", "seed=1,2". Without
            `output=`, results go to multirun/ of the current folder.

    Raises:
        ConfigError: a word or setting is refused, in one line a problem; nothing was trained.
        KeyboardInterrupt: it was interrupted; the same call goes on from the last checkpoints.
        RuntimeError: the command's process was killed; the same call goes on.

    Example::

        sweep = hw1.train("experiment=flatness_interp", "seed=1,2")
        sweep.table("test/accuracy")
    """
    return _sweep("train", _words(words))


def plan(*words: str) -> None:
    """Print the runs that `train` would train, with an estimate of minutes and disk; nothing is trained.

    Args:
        *words: as for `train`.

    Raises:
        ConfigError: a word or setting is refused, in one line a problem.
    """
    _run("train", [*_words(words), "--dry-run"])


def measure(sweep: Sweep | str | os.PathLike[str], *words: str) -> Sweep:
    """Take measures of all finished runs of a sweep; its tables, figures and page take them in.

    Args:
        sweep: it, its folder, or that of an experiment for its latest one.
        *words: measures and settings, as on the command line: "sharpness", "sharpness.examples=2048".

    Raises:
        ConfigError: a measure or setting is refused, or the sweep has no finished run.
        KeyboardInterrupt: it was interrupted; what was measured stays.
    """
    return _sweep("measure", [_path(sweep), *_checked(words)])


def report(sweep: Sweep | str | os.PathLike[str], *words: str) -> Sweep:
    """Measure and draw a sweep again, and write its page; nothing is trained.

    Args:
        sweep: it, its folder, or that of an experiment for its latest one.
        *words: "--keep" takes runs as they are whose code has changed since they were trained.

    Raises:
        ConfigError: there is no such sweep, or its runs were trained with other code.
    """
    return _sweep("report", [_path(sweep), *_checked(words)])


def _path(sweep: Sweep | str | os.PathLike[str]) -> str:
    return str(sweep.path if isinstance(sweep, Sweep) else Path(sweep))


def _words(words: Sequence[str]) -> list[str]:
    """The words of a training, checked."""
    for word in _checked(words):
        if remedy := _NOT_HERE.get(word.partition("=")[0]):
            raise ConfigError(f"{word}: got a word with which nothing is trained, expected settings; use {remedy}")
    return list(words)


def _checked(words: Sequence[str]) -> Sequence[str]:
    for word in words:
        if not isinstance(word, str):
            raise ConfigError(f'words: got {word!r}, expected text, one word of the command each: "seed=1,2"')
        if name := _own_class(word):
            raise ConfigError(
                f"{word.partition('=')[0]}: got {name} of this notebook or script, which no other process can import, "
                f"expected a class of a module: put it into mine.py beside it, and write mine.{name}"
            )
    return words


def _own_class(word: str) -> str:
    """The class of this process's own that a word names, with `__main__` or without any module; "" for none."""
    if named := re.search(r"\b__main__\.([\w.]+)", word):
        return named[1]
    alone = re.search(r"_target_['\"]?\s*[=:]\s*['\"]?(\w+)(?![\w.])", word)
    return alone[1] if alone and hasattr(sys.modules.get("__main__"), alone[1]) else ""


def _sweep(verb: str, words: Sequence[str]) -> Sweep:
    found = _run(verb, words)
    if found is None:
        raise RuntimeError(f"{verb}: the command made no sweep; what it said stands above")
    return Sweep.read(found)


def _run(verb: str, words: Sequence[str]) -> Path | None:
    """Run a command, its output forwarded; returns the folder of its sweep.

    Raises:
        ConfigError: it was refused.
        KeyboardInterrupt: it was interrupted.
        RuntimeError: it was killed.
    """
    with tempfile.TemporaryDirectory(prefix="hw1-") as folder:
        file = Path(folder, "told.json")
        code = _forwarded([sys.executable, "-m", "hw1.child", str(file), verb, *words], file)
        told = _told(file)
    if "error" in told:
        raise ConfigError(told["error"])
    if code == 130:
        raise KeyboardInterrupt
    if code < 0:
        memory = "; is there enough memory?" if code == -9 else ""
        raise RuntimeError(
            f"{verb}: the command was killed by {signal.Signals(-code).name}{memory}; the same call goes on from there"
        )
    if "sweep" not in told and code:
        raise ConfigError(f"{verb}: got words that the command refuses by exit code {code}; it says why above")
    return Path(told["sweep"]) if "sweep" in told else None


def _told(file: Path) -> dict[str, str]:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def _environment() -> dict[str, str]:
    """Of the command: this process's own, with its way to modules."""
    path = os.pathsep.join(dict.fromkeys(os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)))
    own = {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8:backslashreplace"}
    if own.get("MPLBACKEND", "").startswith("module://"):  # a notebook's, which draws into cells
        del own["MPLBACKEND"]
    return own


def _forwarded(command: Sequence[str], file: Path) -> int:
    """Run a command and show what it says as it comes; returns its exit code.

    A stream that is this process's own goes to the command itself, which draws its bars on a terminal. One that is a
    notebook's, or a test's, is written to line by line.

    Raises:
        KeyboardInterrupt: behind it, the command has ended.
    """
    streams = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    forwarded = [
        name for name, stream in streams.items() if stream is None or stream is not getattr(sys, f"__{name}__")
    ]
    for stream in streams.values():
        if stream is not None:
            stream.flush()
    pipes: dict[str, Any] = {name: subprocess.PIPE for name in forwarded}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, env=_environment(), encoding="utf-8", errors="replace", process_group=0, **pipes
    ) as process:
        output = _Output(process, forwarded)
        try:
            _show(output, file)
        except BaseException:
            assert process.stdin is not None
            process.stdin.close()  # what Ctrl-C is on a terminal
            try:
                _show(output, file)
            except BaseException:  # interrupted again, or there is nowhere to show it
                process.kill()
            raise
    return process.returncode


class _Output:
    """What a process says on some of its streams, until it has ended."""

    def __init__(self, process: subprocess.Popen[str], streams: Sequence[str]) -> None:
        self._process, self._open = process, len(streams)
        self._lines: queue.Queue[tuple[str, str | None]] = queue.Queue()
        for name in streams:
            threading.Thread(target=self._read, args=(getattr(process, name), name), daemon=True).start()

    def _read(self, pipe: IO[str], name: str) -> None:
        with contextlib.suppress(ValueError):  # closed while something else holds its other end
            for line in pipe:
                self._lines.put((name, line.rstrip("\n")))
        self._lines.put((name, None))

    def __iter__(self) -> Iterator[tuple[str, str] | None]:
        """(stream, line) as they come, None now and then."""
        last = math.inf
        while self._open or self._process.poll() is None:
            try:
                name, line = self._lines.get(timeout=_EVERY)
            except queue.Empty:
                if self._process.poll() is not None:
                    last = min(last, time.monotonic() + _LAST)
                if time.monotonic() > last:  # what it started and left behind holds the pipe
                    return
                yield None
                continue
            if line is None:
                self._open -= 1
            else:
                yield name, line


def _show(output: _Output, file: Path) -> None:
    live = Live() if in_notebook() else None
    watch: Watch | None = None
    drawn = 0.0
    for one in output:
        if one is not None and not (live and one[0] == "stdout" and live.takes(one[1])):
            stream = getattr(sys, one[0])
            if stream is not None:
                print(one[1], file=stream, flush=True)
        if live and time.monotonic() - drawn > _EVERY:
            drawn = time.monotonic()
            if watch is None and (folder := _told(file).get("sweep")):
                watch = Watch(Path(folder))
            live.draw(watch.bars() if watch else ())
    if live:
        live.draw()
