"""One fault after the other: something is done to a command or its files, then the same command is given again."""

import collections
import os
import random
import shutil
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import broken
from .kinds import DAMAGES, FILES, INJECTIONS, KINDS, file_kind
from .preload import NAMES, RENAME, SIGNAL, Preload
from .processes import asked, command, run, start_server, warm
from .same import differences, fingerprint, remedy, state
from .scenarios import NAME, SCENARIOS, STARTS

SURVIVED, NAMED, VERIFIED, LOST, SILENT = VERDICTS = ("survived", "named", "by verify", "lost", "silent")
_AGAIN = 6  # times that the command is given again, at most, with what it says to do done


@dataclass(frozen=True)
class Fault:
    """What is done: to operation `at` on files of a kind, or to the file `at` of that kind."""

    number: int
    kind: str
    scenario: str
    start: str
    file: str
    at: int
    keep: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of it. `said`: what was refused; `differs`: what is not as undisturbed; `left`: temporaries."""

    fault: Fault
    verdict: str
    path: str = ""
    said: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = field(default=())


class Campaign:
    """Sweeps, their undisturbed ends and their interrupted beginnings, made when a fault asks for them.

    Args:
        folder: where all of it lies.
        seed: of the faults that are drawn.
        scenarios: names; all by default.
        starts: names; all by default.
        kinds: of fault; all by default.
    """

    def __init__(self, folder, seed, scenarios=tuple(SCENARIOS), starts=tuple(STARTS), kinds=KINDS):
        self.folder, self.seed, self._scenarios, self._starts, self._kinds = folder, seed, scenarios, starts, kinds
        self.here = folder / "here"  # where every command works: the same path for all
        self.base = self.here / NAME
        self.preload = Preload(folder / "control", self.base)
        self._made, self._traces, self._wanted, self._files = {}, {}, {}, {}
        self.seconds, self._to_main, self._broken = 0.0, False, None
        warm(SCENARIOS["sweep"].words)
        if any(SCENARIOS[name].workers for name in scenarios):
            start_server()

    # What lies there before

    def start(self, scenario, name):
        """The folder that a fault begins with; None for nothing."""
        known = (scenario, name)
        if known not in self._made:
            made = None if name == "nothing" else self.folder / f"{scenario}-{name}"
            self._made[known] = made
            if name == "finished":
                self._traces[scenario, "nothing"] = self._traced(scenario)
                self._wanted[scenario], damage, left = asked(state, self.base)
                assert not damage + left, f"{scenario}, undisturbed, is damaged: {damage + left}"
            elif made is not None:
                glob, last = STARTS[name]
                self._lay(None)
                at = SCENARIOS[scenario].runs - 1 if last else 0
                self.preload.arm(RENAME, [glob], at, SIGNAL, signal=signal.SIGKILL)
                self._tell(main=SCENARIOS[scenario].workers)
                self._command(scenario)
                fired, _ = self.preload.disarm()
                assert fired, f"{scenario} was not interrupted when it was {name}"
            if made is not None:
                self.here.rename(made)
        return self._made[known]

    def wanted(self, scenario):
        """The undisturbed end."""
        self.start(scenario, "finished")
        return self._wanted[scenario]

    def trace(self, scenario, start):
        """The operations of the undisturbed command from there; it must come to the same end."""
        wanted = self.wanted(scenario)
        if (scenario, start) not in self._traces:
            self._lay(self.start(scenario, start))
            self._traces[scenario, start] = self._traced(scenario)
            found = differences(asked(fingerprint, self.base), wanted)
            assert not found, f"{scenario} from {start}, undisturbed, differs in {found}"
        return self._traces[scenario, start]

    def files(self, scenario, start):
        """{kind: paths below the experiment's folder} of what lies there."""
        if (scenario, start) not in self._files:
            folder = self.start(scenario, start) / NAME
            paths = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
            found = collections.defaultdict(list)
            for path in paths:
                if kind := file_kind(path):
                    found[kind].append(path)
            self._files[scenario, start] = dict(found)
        return self._files[scenario, start]

    # Faults

    def draw(self, number):
        """The fault of a number: the same for the same seed, whatever came before."""
        chance = random.Random(f"{self.seed} {number}")
        order = list(self._kinds)
        random.Random(f"{self.seed} order {number // len(order)}").shuffle(order)
        kind = order[number % len(order)]
        for _ in range(300):
            scenario = chance.choice(self._scenarios)
            if kind in DAMAGES:
                start = chance.choice([name for name in (*self._starts, "finished") if name != "nothing"])
                if STARTS[start] and not self._reaches(scenario, start):
                    continue
                there = self.files(scenario, start)
                file = chance.choice(sorted(there))
                fault = Fault(number, kind, scenario, start, file, chance.randrange(len(there[file])))
                if self._damaged(fault) is None:
                    continue
                return fault
            start = chance.choice([name for name in self._starts if name != "finished"])
            if STARTS[start] and not self._reaches(scenario, start):
                continue
            found = collections.defaultdict(list)
            for op, size, path in self.trace(scenario, start):
                if NAMES[op] & INJECTIONS[kind].op and (of := file_kind(path)):
                    found[of].append(size)
            if found:
                file = chance.choice(sorted(found))
                at = chance.randrange(len(found[file]))
                keep = chance.randrange(1, max(2, found[file][at])) if INJECTIONS[kind].torn else 0
                return Fault(number, kind, scenario, start, file, at, keep)
        return None

    def meet(self, fault, broken=None):
        """Let a fault happen, give the command again, and compare.

        Args:
            fault: what happens.
            broken: called first in the process of the command that meets it: it breaks hw1, to see whether that shows.
        """
        self._broken = broken
        self.seconds = 0.0
        self._lay(self.start(fault.scenario, fault.start))
        path = self._damage(fault) if fault.kind in DAMAGES else self._inject(fault)
        if not path and broken is None:  # a broken writer may spoil a command without any fault
            return Outcome(fault, SURVIVED, notes=("nothing met it",), seconds=self.seconds)
        return replace(self._judge(fault), path=path, seconds=self.seconds)

    def sabotaged(self, number):
        """What a kill comes to that meets a writer that is broken, in the middle of a run's file."""
        scenario, start = self._scenarios[0], "training" if "training" in self._starts else "nothing"
        file = ("last.ckpt", "snapshots", "settings.json", "metrics.csv")[number % 4]
        return self.meet(Fault(number, "SIGKILL in a write", scenario, start, file, 0, keep=40), broken.in_place)

    def _inject(self, fault):
        kind = INJECTIONS[fault.kind]
        globs = [glob for one in FILES[fault.file] for glob in (one, *_hidden(one))] if fault.file != "folders" else []
        globs = globs or ["runs", "sweeps", "runs/*", "sweeps/*"]
        more = {"error": kind.error, "signal": kind.signal, "keep": fault.keep, "lasting": kind.lasting}
        self.preload.arm(kind.op, globs, fault.at, kind.action, **more)
        self._tell(kind.main)
        self._command(fault.scenario)
        self._broken = None
        fired, path = self.preload.disarm()
        return path if fired else ""

    def _damage(self, fault):
        path = self.files(fault.scenario, fault.start)[fault.file][fault.at]
        file, content = self.base / path, self._damaged(fault)
        file.unlink()
        if fault.kind == "a folder in its place":
            file.mkdir()
        elif fault.kind != "deleted":
            file.write_bytes(content)
        return path

    def _damaged(self, fault):
        """What becomes of the file's content; None where it cannot be damaged so."""
        there = self.files(fault.scenario, fault.start)[fault.file]
        own = self.start(fault.scenario, fault.start) / NAME / there[fault.at]
        content, chance = own.read_bytes(), random.Random(f"{self.seed} {fault.number} damage")
        if fault.kind in ("deleted", "a folder in its place"):
            return b""
        if fault.kind == "line doubled" and own.suffix not in (".csv", ".yaml"):
            return None
        others = sorted({one for one in self._others(fault, own, there) if one != content})
        if (fault.kind in ("another's", "older version") and not others) or not content:
            return None
        damaged = DAMAGES[fault.kind](content, chance, chance.choice(others) if others else b"")
        return damaged if damaged != content else None

    def _others(self, fault, own, there):
        """Contents of files of the same kind: of this folder, or of one that was interrupted earlier."""
        if fault.kind == "another's":
            folder = self.start(fault.scenario, fault.start) / NAME
            return [(folder / path).read_bytes() for path in there if path != there[fault.at]]
        found = []
        if fault.kind == "older version":
            for name in list(STARTS)[1 : list(STARTS).index(fault.start)]:
                if name in self._starts and self._reaches(fault.scenario, name):
                    paths = self.files(fault.scenario, name).get(fault.file, [])
                    same = [path for path in paths if path in there or Path(path).name == own.name == "sweep.json"]
                    found += [(self.start(fault.scenario, name) / NAME / path).read_bytes() for path in same]
        return found

    def _judge(self, fault):
        """Give the command again until it ends, doing what it says, then compare, and ask `verify`."""
        said, notes, words, verdict = [], [], [], SURVIVED
        wanted = self.wanted(fault.scenario)
        for _ in range(_AGAIN):
            ended = self._command(fault.scenario, words)
            notes += ["traceback"] if "Traceback (most recent" in ended.stdout + ended.stderr else []
            notes += ["hung"] if ended.hung else []
            if ended.code != 0:
                lines = [one for one in ended.stderr.splitlines() if "error:" in one or one.startswith("failed:")]
                lines = lines or ended.stderr.splitlines()[-1:]
                repeated = bool(said) and lines == said[-len(lines) :]
                said += lines
                done = remedy(lines, self.base)
                if repeated or (not done and len(said) > 2):
                    break
                verdict = NAMED if verdict == SURVIVED else verdict
                if fault.kind in INJECTIONS and any(what == "delete" for what, _ in done):
                    break  # no process that ends, and no write that fails, may cost what was trained before
                words += [word for what, word in done if what == "word"]
                self._do(done)
                continue
            found, damage, left = asked(state, self.base)
            differs = differences(found, wanted)
            if not differs and not damage:
                return Outcome(fault, verdict, "", tuple(said), (), tuple(left), notes=tuple(notes))
            if not damage:
                return Outcome(fault, SILENT, "", tuple(said), tuple(differs), notes=tuple(notes))
            repeated = bool(said) and damage == said[-len(damage) :]
            said += damage
            if repeated:
                break
            verdict = VERIFIED
            self._do(remedy(damage, self.base))
        differs = differences(asked(fingerprint, self.base), wanted)
        return Outcome(fault, LOST, "", tuple(said), tuple(differs), notes=tuple(notes))

    def _do(self, remedies):
        for what, target in remedies:
            if what == "delete" and target.is_dir():
                shutil.rmtree(target)
            elif what == "delete":
                target.unlink(missing_ok=True)
            elif what == "report":
                self.seconds += run(_main, ["report", str(target)]).seconds

    # Commands

    def _command(self, scenario, words=()):
        ended = run(command, [*SCENARIOS[scenario].words, f"output={self.here}", *words], told=self._prepare)
        self.seconds += ended.seconds
        return ended

    def _traced(self, scenario):
        if (scenario, "nothing") not in self._traces:
            self._lay(None)
        self.preload.trace()
        ended = self._command(scenario)
        trace = self.preload.traced()
        assert ended.code == 0, ended.stderr
        return trace

    def _tell(self, main):
        self._to_main = main

    def _prepare(self):
        """In the process of a command, before it begins."""
        if self._to_main:
            self.preload.told.whom = os.getpid()
        if self._broken is not None:
            self._broken()

    def _lay(self, start):
        shutil.rmtree(self.here, ignore_errors=True)
        if start is not None:
            shutil.copytree(start, self.here)

    def _reaches(self, scenario, start):
        """Whether a command of the scenario comes to that moment."""
        glob = STARTS[start][0]
        self.wanted(scenario)
        measures = any(word.startswith("measures=[") for word in SCENARIOS[scenario].words)
        return measures or "measures" not in glob


def _hidden(glob):
    """Globs of the temporary folders of files that match one, and of what stands in them."""
    folder, _, name = glob.rpartition("/")
    room = f"{folder}/.{name}.*.part" if folder else f".{name}.*.part"
    return room, f"{room}/*"


def _main(words):
    from hw1.__main__ import main

    return main(words)
