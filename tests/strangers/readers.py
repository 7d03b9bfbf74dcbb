"""Every reader of results, on a folder that a stranger has filled, with what it said and what it touched.

Runs in a process of its own: `read_all`.
"""

import contextlib
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import socket
import sys
import traceback
from pathlib import Path

from .plants import TOKEN, Place, plant

SECONDS = 60  # of CPU, within which a reader must have ended
REFUSED, SHOWN, FAULT = "refused", "shown", "FAULT"


def _run(place):
    from hw1.runs import Run

    run = Run(place.run)
    for name in ("net", "theta", "snapshots", "datamodule", "nets"):
        _said(getattr(run, name))
    for name in ("settings", "result", "history", "metrics", "status", "slug", "constant", "_repr_html_"):
        _said(lambda name=name: (lambda one: one() if callable(one) else one)(getattr(run, name)))
    print(repr(run))


def _sweep(place):
    from hw1.runs import Sweep

    sweep = Sweep.read(place.base)
    for name in ("runs", "table", "tables", "figures", "answer", "about", "asks", "history", "measures", "_repr_html_"):
        _said(lambda name=name: (lambda one: one() if callable(one) else one)(getattr(sweep, name)))
    print(repr(sweep))


def _said(read):
    """What Python says, or raises: one line of hw1's own."""
    from hw1.explaining import explain
    from hw1.records import DamagedError
    from hw1.settings import ConfigError

    try:
        print(read())
    except (ConfigError, DamagedError, OSError) as error:
        print(f"error: {explain(error)}", file=sys.stderr)


def _main(*words):
    from hw1.__main__ import main

    try:
        code = main([str(word) for word in words])
    except SystemExit as left:
        code = left.code
    print(f"exit code {code}")


def _filled(which):
    def fill(place):
        from hw1.reproduction import claims, results

        print(*{"results": results.fill, "claims": claims.fill}[which](place.top / "checkout", place.base.parent))

    return fill


SAME = ("name=tiny", "dataset=digits", "dataset.train_size=60", "model=mlp", "model.hidden=[3]", "trainer.max_epochs=1")
SAME += ("logger=none", "callbacks=weight_snapshots")
READERS = {
    "Run": _run,
    "Sweep": _sweep,
    "report": lambda p: _main("report", p.base),
    "list": lambda p: _main("list", p.base.parent),
    "runs": lambda p: _main("runs", p.base),
    "compare": lambda p: _main("compare", p.base, p.top / "other" / "multirun" / "tiny"),
    "measure": lambda p: _main("measure", p.base, "sensitivity"),
    "verify": lambda p: _main("verify", p.base.parent),
    "export": lambda p: _main("export", p.base.parent),
    "adopt": lambda p: _main(
        *("adopt", f"weights={p.base}/runs/*", *SAME[1:5], "name=taken", f"output={p.base.parent}", "logger=none")
    ),
    "results": _filled("results"),
    "claims": _filled("claims"),
    "the same command": lambda p: _main("train", *SAME, f"output={p.base.parent}", "hydra/launcher=basic"),
}


def read_all(top, name, readers, file):
    """Plant, read with each reader, and write {reader: [verdict, what was wrong, CPU seconds]} to a file."""
    found = {}
    os.environ["XDG_CONFIG_HOME"] = str(Path(top).parent / "config_of_the_victim")
    os.environ["TOKEN"] = TOKEN
    for reader in readers:
        place = Place(Path(top) / reader.replace(" ", "_"))
        unread = {"checkout"} if reader not in ("results", "claims") else set()
        shutil.copytree(
            Path(top).parent / "template", place.top, ignore=lambda _, names, left=unread: left & set(names)
        )
        plant(name, place)
        os.chdir(place.top / "here")
        found[reader] = _guarded(place, reader)
        os.chdir(top)
        shutil.rmtree(place.top, ignore_errors=True)
    Path(file).write_text(json.dumps(found))


def _guarded(place, reader):
    opened, out, err = [], io.StringIO(), io.StringIO()

    def refuse(self, address, *rest):
        if not isinstance(address, str):  # a socket of this machine's, between processes
            opened.append(str(address))
        raise OSError("no network here")

    real, socket.socket.connect = socket.socket.connect, refuse
    resolve, socket.getaddrinfo = socket.getaddrinfo, lambda *words, **more: refuse(None, words)
    before, spent = _outside(place), _cpu()
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(10 * SECONDS)
    raised = ""
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            READERS[reader](place)
    except BaseException as error:
        from hw1.records import DamagedError
        from hw1.settings import ConfigError

        raised = f"error: {error}" if isinstance(error, ConfigError | DamagedError | FileNotFoundError) else ""
        raised = raised or "Traceback: " + "".join(traceback.format_exception(error)[-3:])
    finally:
        signal.alarm(0)
        socket.socket.connect, socket.getaddrinfo = real, resolve
    text = out.getvalue() + err.getvalue() + raised
    wrong = [] if not place.canary.exists() else ["the canary: code ran"]
    wrong += [f"written outside: {name}" for name in _different(before, _outside(place)) if "canary" not in name]
    wrong += ["the variable's value is shown"] if TOKEN in text or _in_files(place) else []
    wrong += [f"an address was opened: {opened[0]}"] if opened else []
    wrong += ["a raw escape"] if "\x1b" in out.getvalue() + err.getvalue() and reader not in ("Run", "Sweep") else []
    wrong += [f"a traceback: {text[text.index('Traceback') :][-700:]}"] if "Traceback" in text else []
    errors = [line for line in (err.getvalue() + raised).splitlines() if line.strip()]
    if reader not in ("Run", "Sweep"):
        said = [line for line in errors if line.startswith("error: ")]
        wrong += [f"said twice: {said}"] if len(said) > len({*said}) else []
    seconds = _cpu() - spent
    wrong += [f"{seconds:.0f} s"] if seconds > SECONDS else []
    verdict = REFUSED if any("error" in line or "failed" in line for line in errors) else SHOWN
    return [FAULT if wrong else verdict, wrong or errors[:3], round(seconds, 2)]


def _too_long(number, frame):
    raise TimeoutError("it hung")


def _cpu():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _outside(place):
    """{path: sum} of all that is the victim's: not the folder of results, nor the pages of `results`."""
    found = {}
    for top in ("mine", "here", "other"):
        for file in sorted((place.top / top).rglob("*")):
            if file.is_file() and not file.is_symlink():
                found[str(file.relative_to(place.top))] = hashlib.sha256(file.read_bytes()).hexdigest()
            else:
                found[str(file.relative_to(place.top))] = ""
    # a comparison's page and index stand in the folder of the second sweep, which is hers
    return {name: value for name, value in found.items() if "compare_" not in name and "__pycache__" not in name}


def _different(before, after):
    return [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]


def _in_files(place):
    files = [file for file in (place.top / "given").rglob("*") if file.is_file() and not file.is_symlink()]
    return any(TOKEN.encode() in file.read_bytes() for file in files)
