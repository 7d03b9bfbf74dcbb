"""Commands under a launcher, whose steps are logged, and what came of them."""

import hashlib
import os
import signal
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from safetensors.torch import load_file

from hw1.runs import Run
from warm import WarmProcess

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TRAIN, HW1 = ROOT / "train.py", ROOT / "src" / "hw1" / "__main__.py"
EPOCH, STEPS = 4, 12  # steps: three epochs of four
WORDS = (
    *("model=mlp", "model.hidden=[8]", "dataset=digits", "dataset.train_size=64", "dataset.batch_size=16"),
    *("trainer.max_epochs=3", "trainer.checkpoint_seconds=0", "trainer.progress=false", "logger=none"),
    "+callbacks.log._target_=crowded.Log",
)
TWO = "hydra.launcher.workers=2"
# The words of each, and the package that it needs.
LAUNCHERS = {
    "basic": (("hydra/launcher=basic",), ""),
    "parallel": (("hydra/launcher=parallel", TWO), ""),
    "joblib": (("hydra/launcher=joblib", TWO), ""),
    "ray": (("hydra/launcher=ray", TWO), "ray"),
    "submitit_local": (("hydra/launcher=submitit_local", "hydra.launcher.array_parallelism=2"), "submitit"),
}


def missing(launcher):
    """Why a launcher cannot be tried here; "" where it can."""
    words, package = LAUNCHERS[launcher]
    if package and find_spec(package) is None:
        return f"{package} is not installed"
    option = words[0].partition("=")[2]
    there = option in ("basic", "parallel") or (ROOT / "conf" / "hydra" / "launcher" / f"{option}.yaml").exists()
    return "" if there else f"there is no conf/hydra/launcher/{option}.yaml"


@dataclass
class Bench:
    """A launcher, and a folder for what its commands write."""

    launcher: str
    folder: Path
    started: list = field(default_factory=list)

    def start(self, name, *words, program=TRAIN, **environment):
        """The running process of a command with its output below `name`."""
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        env = {one: text for one, text in os.environ.items() if one != "HYDRA_FULL_ERROR"}
        paths = [str(HERE.parent / "crowding"), str(HERE), *filter(None, [env.get("PYTHONPATH")])]
        env |= {"PYTHONPATH": os.pathsep.join(paths), "CROWDED_LOG": str(self.log(name)), "LOKY_MAX_CPU_COUNT": "1"}
        env |= {one: str(text) for one, text in environment.items()}
        shared = (*WORDS, f"output={self.folder / name}") if program == TRAIN else ()
        own = LAUNCHERS[self.launcher][0]
        if self.launcher == "submitit_local":  # what killed commands leave goes with the bench
            own = (*own, f"hydra.launcher.submitit_folder={self.folder / 'jobs'}")
        self.started.append(WarmProcess(program, [*shared, *words, *own], cwd=ROOT, env=env))
        return self.started[-1]

    def log(self, name):
        return self.folder / name / "log"

    def lines(self, name):
        """[process, run's key, step, `open` or `ended`] of every line."""
        return [line.split() for line in self.log(name).read_text().splitlines()] if self.log(name).exists() else []

    def runs(self, name):
        return [Run(file.parent) for file in sorted((self.folder / name / "default" / "runs").glob("*/result.json"))]

    def hashes(self, name):
        """{run's key: SHA-256 of its weights}."""
        return {run.key: sha256(run.weights_file) for run in self.runs(name)}

    def until(self, name, process, step):
        """The process of the first run that has come to a step, when it has."""
        begun = time.monotonic()
        while True:
            there = [int(pid) for pid, _, at, _ in self.lines(name) if int(at) >= step]
            if there:
                return there[0]
            if process.poll() is not None or time.monotonic() - begun > 300:
                raise AssertionError(f"no run came to step {step}: {process.communicate(1)}")
            time.sleep(0.01)

    def end(self):
        """End what still runs."""
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


def ends(process, code=0, seconds=600):
    """(stdout, stderr) of a command that ends as it should."""
    stdout, stderr = process.communicate(seconds)
    assert process.returncode == code, f"exit code {process.returncode}: {stdout[-2000:]}{stderr[-3000:]}"
    assert "Traceback" not in stderr, stderr[-3000:]
    return stdout, stderr


def sha256(file):
    tensors = sorted(load_file(file).items())
    return hashlib.sha256(b"".join(value.numpy().tobytes() for _, value in tensors)).hexdigest()


def gone(pid):
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
