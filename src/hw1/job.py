"""The door of `train.py` and `hw1 train`: hands words to Hydra, does one job of a sweep. Imports nothing heavy."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from hw1 import preemption

_command = 0  # the process that is a command: a job in it ends as that does


def run(config: Any) -> None:
    """One job of a sweep, in the folder that the sweeper picked: train the run, then take its measures.

    Whoever launched it, it downloads nothing: the sweeper did, before it launched.

    Raises:
        Preempted: it was asked to stop, in a process of an engine's; the same job goes on.
        KeyboardInterrupt: the same, in the command's own process.
    """
    from hw1.data.downloads import JOBS, nothing_downloaded

    with preemption.listening(interrupts=os.getpid() == _command), nothing_downloaded(JOBS):
        _run(config)


def _run(config: Any) -> None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from hw1.command import fail, job_line
    from hw1.environment import stored_settings
    from hw1.measures.take import epochs_wanted, take, take_pieces
    from hw1.runs import Run
    from hw1.runs.order import count_end, read_order
    from hw1.settings import ConfigError, RunSettings
    from hw1.studies.parts import keep_parts
    from hw1.terminal import say
    from hw1.trust.owner import vouch
    from hw1.trust.reading import ready

    ready()
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        problem = "hydra.mode: got RUN, expected MULTIRUN: a run's folder and key are picked by the sweeper"
        fail(ConfigError(problem), full=False)
    folder = Path(hydra.runtime.output_dir)
    order = read_order(Path(config.sweep))
    asks = order.asks
    if order.pieces is not None:
        if (folder / "sweep.json").exists():
            keep_parts(folder, {name for _, name in order.pieces})
        else:
            take_pieces(Run(folder), asks, {(file, name) for file, name in order.pieces}, order.threads)
        return
    if config.measured_sweep is None:
        from hw1.training.fit import fit

        plain: Any = OmegaConf.to_container(config, resolve=True)
        settings = RunSettings.check(plain, stored_settings(config))
        vouch([settings.plain])
        words = [word for word in hydra.overrides.task if not word.startswith("sweep=")]
        result = fit(settings, folder, words, epochs_wanted(asks, settings), _for_hydras_users(config, hydra))
        if result["status"] != "complete":
            say(job_line(order, folder, [], count_end(order.counter)))
            return
    taken = take(Run(folder), asks, order.threads)
    say(job_line(order, folder, taken, count_end(order.counter)))


def _for_hydras_users(config: Any, hydra: Any) -> dict[str, str]:
    """The files that Hydra itself would have written, {path in the run's folder: text}; of variables, names alone."""
    from omegaconf import OmegaConf

    from hw1.environment import asked_for, hidden

    values = asked_for(config)
    parts = {"config": config, "hydra": OmegaConf.create({"hydra": hydra}), "overrides": hydra.overrides.task}
    plain = {name: OmegaConf.to_container(part, resolve=False, enum_to_str=True) for name, part in parts.items()}
    return {
        f".hydra/{name}.yaml": OmegaConf.to_yaml(OmegaConf.create(hidden(part, values))) for name, part in plain.items()
    }


def interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends a sweep as Ctrl-C does."""
    raise KeyboardInterrupt


def command(project: Path, words: Sequence[str] | None = None, own_conf: bool = True) -> None:
    """Normalise the words, hand over to Hydra, and put every error into one line.

    Args:
        project: the folder of the default output, and of the user's own conf/.
        words: of the command; by default those of this process.
        own_conf: whether the conf/ there is the user's to take settings from.
    """
    from hw1.command import completes, fail, normalised, refuse_slips, say_losses, with_budget
    from hw1.help import help_for, start_line, version_text
    from hw1.settings.conf import CONF, PROJECT, project_conf, refuse_replaced, shipped

    global _command
    _command = os.getpid()
    words, conf = list(sys.argv[1:] if words is None else words), shipped()
    os.environ[PROJECT] = str(project)
    if own_conf:
        os.environ.pop(CONF, None)
    else:
        os.environ[CONF] = "none"
    full = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    try:
        if asked := {"--help", "-h", "--version"} & set(words):
            print(version_text() if asked == {"--version"} else help_for(words, conf), flush=True)
            return
        if completes(words, conf):
            return
        if (own := project_conf()) is not None:
            refuse_replaced(own)
        refuse_slips(words, conf)
        os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of being printed by Hydra
        signal.signal(signal.SIGTERM, interrupt)
        hydras = normalised(words)
        if hydras[0] == "--multirun" and (line := start_line(words, conf)):
            print(line, file=sys.stderr, flush=True)
        if hydras[0] == "--multirun":
            say_losses(words, conf)

        import hydra

        sys.argv[1:] = normalised(with_budget(words, conf))
        hydra.main(version_base="1.3", config_path=str(conf), config_name="train")(run)()
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as of a process that SIGPIPE ended
    except Exception as error:
        fail(error, full)
