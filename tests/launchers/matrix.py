"""What is tried with every launcher: each case says what it saw, or raises."""

import json
import os
import signal
import time

from kills import made_again, visits

from .commands import EPOCH, HW1, STEPS, Bench, ends, gone

SEEDS = "seed=1,2,3"
AT_ONCE = 30.0  # seconds, on a crowded machine too, within which no worker of an ended command is left
SLOWLY = {"CROWDED_PAUSE": 0.1}  # seconds a step, so that there is time to kill


class Matrix:
    """The cases of one launcher; what the first has trained is what others skip and measure.

    Args:
        launcher: its name.
        folder: where its commands write.
        reference: of the basic launcher, whose weights and numbers are the right ones; None for itself.
    """

    def __init__(self, launcher, folder, reference=None):
        self.bench = Bench(launcher, folder)
        self.reference = reference or self
        self._trained = self._measured = None

    @property
    def weights(self):
        """{key: SHA-256} of the three runs."""
        if self._trained is None:
            stdout, _ = ends(self.bench.start("plain", SEEDS))
            assert len([line for line in stdout.splitlines() if line.startswith("[")]) == 3, stdout
            self._trained = self.bench.hashes("plain")
            assert len(self._trained) == 3
        return self._trained

    @property
    def numbers(self):
        """{run: rows of what was measured of it}."""
        if self._measured is None:
            assert self.weights
            sweep = self.bench.folder / "plain" / "default"
            ends(self.bench.start("plain", "measure", str(sweep), "sensitivity", program=HW1))
            files = sorted(sweep.glob("runs/*/measures/sensitivity*.json"))
            self._measured = {file.parent.parent.name: json.loads(file.read_text())["rows"] for file in files}
        return self._measured

    def equal(self, name):
        """The runs below `name` are those of the reference; says so."""
        found, right = self.bench.hashes(name), self.reference.weights
        assert found == right, {key: found.get(key) for key in right if found.get(key) != right[key]}
        return f"SHA-256 of {len(found)} equal"

    # The cases

    def train(self):
        said = self.weights and self.equal("plain")
        return f"3 runs in {len({pid for pid, *_ in self.bench.lines('plain')})} processes; {said}"

    def skip(self):
        assert self.weights
        before = {run.path: (run.path / "result.json").stat().st_mtime_ns for run in self.bench.runs("plain")}
        lines = len(self.bench.lines("plain"))
        stdout, _ = ends(self.bench.start("plain", SEEDS))
        assert "nothing to do" in stdout and len(self.bench.lines("plain")) == lines
        assert before == {run.path: (run.path / "result.json").stat().st_mtime_ns for run in self.bench.runs("plain")}
        return f"no step made; {self.equal('plain')}"

    def ended(self, number):
        """The command is ended in the middle; the same words go on."""
        name = number.name
        process = self.bench.start(name, SEEDS, **SLOWLY)
        self.bench.until(name, process, EPOCH + 1)
        process.send_signal(number)
        begun = time.monotonic()
        _, stderr = process.communicate(60)
        pids = {int(pid) for pid, *_ in self.bench.lines(name)}
        while not all(map(gone, pids)):
            assert time.monotonic() - begun < AT_ONCE, f"after {AT_ONCE:g} s workers are still there"
            time.sleep(0.01)
        seconds, made = time.monotonic() - begun, len(self.bench.lines(name))
        assert seconds < AT_ONCE, f"workers were there for {seconds:.1f} s"
        time.sleep(1)
        assert len(self.bench.lines(name)) == made, f"something trained on: {self.bench.lines(name)[made:]}"
        results = [(run.status, run.result.get("error")) for run in self.bench.runs(name)]
        assert not results, f"runs have ended: {results}"
        assert "Traceback" not in stderr, stderr
        if number != signal.SIGKILL:
            assert process.returncode == 130 and stderr.count("interrupted") == 1, (process.returncode, stderr)
        ends(self.bench.start(name, SEEDS))
        assert self._went_on(name), "begun anew"
        return f"all gone in {seconds:.1f} s, gone on from checkpoints; {self.equal(name)}"

    def saved(self):
        """The command is asked to end in the middle of an epoch, checkpoints hours apart: no step is made again."""
        rarely = "trainer.checkpoint_seconds=10000"
        process = self.bench.start("saved", SEEDS, rarely, **SLOWLY)
        self.bench.until("saved", process, EPOCH + 2)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(60)
        assert process.returncode == 130, stderr
        ends(self.bench.start("saved", SEEDS, rarely))
        turns = visits(self.bench.lines("saved"))
        again, _ = made_again(turns, EPOCH)
        assert again == 0 and max(map(len, turns.values())) == 2, f"{again} steps made again of {turns}"
        return f"no step made again; {self.equal('saved')}"

    def killed(self):
        """A worker is killed; its run is launched again."""
        process = self.bench.start("killed", SEEDS, **SLOWLY)
        pid = self.bench.until("killed", process, EPOCH + 1)
        if pid == process.pid:
            process.send_signal(signal.SIGKILL)
            return "-: jobs run in the command itself"
        os.kill(pid, signal.SIGKILL)
        _, stderr = ends(process)
        named = next((line for line in stderr.splitlines() if line.startswith("launcher: ")), "")
        assert "SIGKILL" in named and "going on with" in named, stderr
        assert self._went_on("killed"), "begun anew"
        return f"{named.partition(': ')[2]}; {self.equal('killed')}"

    def failed(self):
        words = ["+callbacks.fails={_target_: failing.Fails, seed: '${seed}', at: 2}"]
        _, stderr = ends(self.bench.start("failed", SEEDS, *words), 1)
        status = sorted(run.status for run in self.bench.runs("failed"))
        assert status == ["complete", "complete", "failed"], status
        assert "made to fail" in stderr and stderr.count("failed: ") == 1, stderr
        return "named, exit code 1; the two others complete"

    def measure(self):
        assert self.numbers == self.reference.numbers and len(self.numbers) == 3
        return "numbers of 3 runs equal"

    def _went_on(self, name):
        """Whether some run was gone on with, none from its start after a checkpoint."""
        turns = visits(self.bench.lines(name))
        made = [{step for _, steps in one for step in steps} for one in turns.values()]
        assert len(made) == 3 and all(set(range(STEPS + 1)) == steps for steps in made)
        again = [one for one in turns.values() if len(one) > 1 and one[0][1][-1] > EPOCH]
        return bool(again) and all(one[1][1][0] >= EPOCH for one in again)


CASES = {
    "train": Matrix.train,
    "skip": Matrix.skip,
    "measure": Matrix.measure,
    "resume after SIGINT": lambda matrix: matrix.ended(signal.SIGINT),
    "resume after SIGTERM": lambda matrix: matrix.ended(signal.SIGTERM),
    "resume after SIGKILL": lambda matrix: matrix.ended(signal.SIGKILL),
    "saved on SIGTERM": Matrix.saved,
    "killed worker": Matrix.killed,
    "failed run": Matrix.failed,
}
