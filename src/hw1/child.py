"""The process in which `hw1.python` runs a command: `python -m hw1.child FILE VERB words...`. No torch.

What the caller must know stands in FILE, as JSON: `sweep`, the folder that the command is at work on, and `error`, why
it was refused. The end of standard input, when the caller closes it or is gone, is what Ctrl-C is on a terminal.
"""

import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

from hw1 import news


def main(file: Path, verb: str, words: list[str]) -> int:
    """Run one command; returns its exit code."""
    _interrupted_by_the_end_of(_own_input())
    full = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of being printed
    told: dict[str, str] = {}

    def tell(name: str, text: str) -> None:
        from hw1.files import write_text

        told[name] = text
        write_text(file, json.dumps(told))

    news.hears = lambda folder: tell("sweep", str(folder))
    try:
        from hw1.__main__ import main as command

        return command([verb, *words])
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # whatever the command raised: it is said, and the caller raises it
        from hw1.explaining import explain
        from hw1.settings.local import named

        if full:
            traceback.print_exc()
        tell("error", named(explain(error), sys.argv[1:]))
        return 1


def _own_input() -> int:
    """Standard input as a file that no other process gets; its place is taken by one that is empty."""
    own = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return own


def _interrupted_by_the_end_of(file: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def wait() -> None:
        while os.read(file, 1024):
            pass
        if hasattr(signal, "pthread_kill"):  # it wakes a thread that waits, too
            signal.pthread_kill(main_thread, signal.SIGINT)
        else:
            signal.raise_signal(signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
