"""What the launchers of submitit share: a job as it is pickled, where pickles and logs lie, what it came to.

Hydra imports this file at every start: it stays free of torch, and of submitit.
"""

import hashlib
import importlib.util
import os
import re
import secrets
import shlex
import stat
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from hw1.explaining import explain
from hw1.inside import is_private
from hw1.lease import LostError
from hw1.records import FORMAT, read_record, write_record
from hw1.settings import ConfigError, RunSettings
from hw1.settings.processes import NODES, environment_of_all, processes_here

STATE = "state.pkl"  # in a submission's folder: what all of its jobs need
_OVER = "over"  # in the folder where the machines of a job meet: it has ended
_TOO_OFTEN = (  # for submitit's own words, which name no remedy
    "the job reached its time limit more often than hydra.launcher.max_num_timeout queues it again; the same words go "
    "on from what is saved: allow more, or give a job more time (hydra.launcher.timeout_min)"
)
_SAID = re.compile(r"\[\d+/\d+\] ")  # how the line begins that says what a job came to


@dataclass
class Job:
    """One job of a sweep, as submitit pickles it. Where it is started again, it goes on from the last checkpoint.

    Attributes:
        folder: of the submission.
        digest: SHA-256 of what stands in its state.
        number: of the job there.
        index: of the job in its sweep, Hydra's.
        words: of the job.
        nodes: on which it runs: its run's trainer.num_nodes. On each the engine starts a process, of which the first is
            the job, and the others serve it.
        place: the current folder of the command.
        environment: of the command, where it is hw1's own.
    """

    folder: str
    digest: str
    number: int
    index: int
    words: list[str]
    nodes: int = 1
    place: str = field(default_factory=os.getcwd)
    environment: dict[str, str] = field(default_factory=environment_of_all)

    def __call__(self) -> None:
        """Do it, in a process of the engine's; what it came to stands in the submission's folder."""
        os.chdir(self.place)
        os.environ.update(self.environment)
        if self.nodes == 1:
            self._do()
            return
        # A place of this start's own: what is announced where the job was started before leads nowhere.
        meeting = Path(self.folder, f"nodes-{self.number}-{os.environ.get('SLURM_RESTART_COUNT', '0')}")
        meeting.mkdir(mode=0o700, exist_ok=True)
        os.environ[NODES] = str(meeting)
        if os.environ.get("SLURM_PROCID", "0") == "0":
            self._do()
            with suppress(FileNotFoundError):  # the command has seen what it came to, and put the folder away
                (meeting / _OVER).touch()
        else:
            from hw1.training.attending import attend

            over = meeting / _OVER
            attend(meeting, lambda: over.exists() or not meeting.is_dir(), lambda line: print(line, flush=True))

    def _do(self) -> None:
        import cloudpickle

        from hydra_plugins.hw1_launcher.launcher import _run

        state = Path(self.folder, STATE).read_bytes()
        if hashlib.sha256(state).hexdigest() != self.digest:
            raise RuntimeError(f"{self.folder}/{STATE}: got other content than was submitted")
        done = cloudpickle.loads(_run(state, (self.index, self.words)))  # pickled a moment ago, in this process
        raised = done._return_value
        said = explain(raised) if isinstance(raised, Exception) else ""
        outcome = {"error": _TOO_OFTEN if "timed-out too many times" in said else said, "lost": False}
        if isinstance(raised, LostError):
            outcome = {"error": str(raised), "lost": True}
        write_record(Path(self.folder, f"{self.number}.json"), {"format": FORMAT, **outcome})

    def checkpoint(self) -> Any:
        """What submitit starts when the job was told to stop: the same again, which goes on from the checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class SubmititLauncher(BasicLauncher):
    """What is common to submitit on this machine and on a cluster.

    Raises:
        ValueError: a setting cannot be used.
    """

    name = ""  # of the option of hydra/launcher
    _passed: frozenset[str] = frozenset()  # settings that are submitit's alone

    def __init__(
        self,
        submitit_folder: str | None,
        array_parallelism: int | None,
        cpus_per_task: int | None,
        gpus_per_node: int | None,
        timeout_min: int,
        max_num_timeout: int,
        signal_delay_s: int,
        **settings: Any,
    ) -> None:
        super().__init__()
        if unknown := sorted(settings.keys() - self._passed):
            raise ValueError(
                f"hydra.launcher.{unknown[0]}: got a setting that {self.name} has not; where conf/local.yaml says it, "
                "that is for another launcher: remove it there; array_parallelism is the number of jobs at a time"
            )
        for key, value in (("array_parallelism", array_parallelism), ("cpus_per_task", cpus_per_task)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"hydra.launcher.{key}: got {value}, expected a positive integer or null")
        if not isinstance(timeout_min, int) or timeout_min < 1:
            raise ValueError(f"hydra.launcher.timeout_min: got {timeout_min}, expected whole minutes, at least 1")
        if not 0 <= signal_delay_s < 60 * timeout_min:
            raise ValueError(
                f"hydra.launcher.signal_delay_s: got {signal_delay_s}, expected seconds, fewer than timeout_min has"
            )
        if not isinstance(max_num_timeout, int) or max_num_timeout < 0:
            raise ValueError(f"hydra.launcher.max_num_timeout: got {max_num_timeout}, expected an integer, 0 or more")
        self._root, self._parallel = submitit_folder, array_parallelism
        self._cpus, self._gpus, self._timeouts = cpus_per_task, gpus_per_node, max_num_timeout
        plain = {
            key: OmegaConf.to_object(value) if OmegaConf.is_config(value) else value for key, value in settings.items()
        }
        self._settings = {**plain, "timeout_min": timeout_min, "signal_delay_s": signal_delay_s}
        self._expected: Sequence[RunSettings] = ()

    def expect(self, runs: Sequence[RunSettings]) -> None:
        """What is known of the jobs that are launched next, in their order."""
        self._expected = list(runs)

    def prepare(self, runs: Sequence[RunSettings]) -> None:
        """Refuse, before anything is checked that takes long, what cannot be launched."""
        self.ready(runs)

    def ready(self, runs: Sequence[RunSettings]) -> None:
        """Refuse what cannot be launched.

        Raises:
            ConfigError: the package is missing, or the folder of its pickles lies inside the output.
        """
        if importlib.util.find_spec("submitit") is None:
            raise ConfigError(
                f"hydra/launcher: got {self.name}, which needs the package submitit, expected it to be installed: "
                'pip install "hw1[submitit]"'
            )
        self._refuse_inside(self._output())

    def _output(self) -> Path:
        assert self.config is not None
        return Path(str(self.config.hydra.sweep.dir)).absolute().parent

    def _refuse_inside(self, output: Path) -> None:
        root = self.root()
        if root.resolve().is_relative_to(output.resolve()):
            raise ConfigError(
                f"hydra.launcher.submitit_folder: got {root}, inside the output {output}; expected a folder "
                "outside, as what lies there is unpickled: leave it out for one in your home"
            )

    def root(self) -> Path:
        """Where submissions have their folders; the part of a path from submitit's `%j` on is left out."""
        if self._root is None:
            import platformdirs

            return platformdirs.user_state_path("hw1") / "submitit"
        kept = []
        for part in Path(self._root).expanduser().absolute().parts:
            if "%" in part:
                break
            kept.append(part)
        return Path(*kept)

    def _new_folder(self) -> Path:
        """A folder of a submission's own, for this user alone."""
        root = self.root()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = root.stat().st_mode
        if mode & 0o022 and not mode & stat.S_ISVTX:
            raise ConfigError(
                f"hydra.launcher.submitit_folder: got {root}, in which others can write, expected a folder of your "
                f"own: chmod go-w {root}"
            )
        folder = root / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        folder.chmod(0o700)  # whatever the umask
        if not is_private(folder):
            raise ConfigError(
                f"hydra.launcher.submitit_folder: got {root}, where a folder cannot be kept from others, expected "
                "a file system with permissions"
            )
        return folder

    def _write_state(self, folder: Path) -> str:
        """Write what all jobs need; returns its SHA-256."""
        import cloudpickle

        singletons = Singleton.get_state()
        state = cloudpickle.dumps(
            (self.hydra_context, self.config, self.task_function, singletons, False, self._job_memory())
        )
        (folder / STATE).write_bytes(state)
        return hashlib.sha256(state).hexdigest()

    def _job_memory(self) -> float | None:
        """Bytes that a job's measures keep to; None where the engine ends no job that takes more."""
        return None

    def _taken(self, jobs: int) -> Sequence[RunSettings]:
        """What is known of the jobs, once."""
        runs, self._expected = self._expected, ()
        return runs if len(runs) == jobs else []

    def _needs(self, run: RunSettings | None) -> tuple[int, int]:
        """(cores, GPUs) that a job states of each node: for all processes of its run there."""
        gpus = 0
        if run is not None and run.trainer.get("accelerator") not in ("cpu", "mps"):
            devices = run.trainer.get("devices", 1)
            number = len(devices) if isinstance(devices, list | tuple) else devices
            gpus = number if type(number) is int and number > 0 else 1
        cpus = 1 if run is None else run.threads * processes_here(run)
        return self._cpus or cpus, gpus if self._gpus is None else self._gpus


PYTHON = f"{shlex.quote(sys.executable)} -P"  # nothing is imported from the folder in which a job happens to start


def path_for_jobs() -> str:
    """PYTHONPATH of a job: what this process imports from beside Python's own folders."""
    own = [entry for entry in sys.path if entry and not Path(entry).is_relative_to(sys.base_prefix)]
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([*filter(None, known), *(e for e in own if "site-packages" not in e)]))


def place_of(words: Sequence[str]) -> tuple[Path, str]:
    """(the order that a job reads, the name of its run's folder), of the words of a job."""
    parser = OverridesParser.create()
    found = {word.partition("=")[0]: word for word in words if word.startswith(("sweep=", "hydra.sweep.subdir="))}
    order, subdir = (str(parser.parse_override(found[key]).value()) for key in ("sweep", "hydra.sweep.subdir"))
    return Path(order), Path(subdir).name


def came_to(outcome: Path) -> JobReturn | None:
    """What a job came to, as Hydra has it; None while it has not ended."""
    try:
        record = read_record(outcome)
    except FileNotFoundError:
        return None
    error = str(record.get("error", ""))
    # The text is explained already: a ConfigError's is shown as it is.
    return returned((LostError if record.get("lost") else ConfigError)(error) if error else None)


def returned(error: Exception | None) -> JobReturn:
    """A job's result, of which only an error is ever asked for."""
    result = JobReturn()
    result.status = JobStatus.FAILED if error is not None else JobStatus.COMPLETED
    result._return_value = error
    return result


def tell(log: Path) -> None:
    """Print the lines of a job's log that say what it came to."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        if _SAID.match(line):
            print(line, flush=True)
