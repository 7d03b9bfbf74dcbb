"""What train.py understands and says: its words in order, the end of a job. Imports little."""

from __future__ import annotations

import os
import re
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw1.explaining import explain, options
from hw1.help import own_folder
from hw1.replaced import drop, leftovers, settable, shared_settings
from hw1.settings.identity import ConfigError
from hw1.settings.local import named
from hw1.slips import left_out, slips
from hw1.stages import duration
from hw1.sweep_words import ZIP, apart, joined, zipped
from hw1.terminal import say

if TYPE_CHECKING:
    from hw1.measures.take import Taken
    from hw1.runs.order import Order

# Hydra's other modes; with one of them the command is no sweep.
_OTHER_MODES = ("--cfg", "-c", "--info", "-i", "--run", "-r", "--shell-completion", "-sc", "--hydra-help", "--version")

_SHELL = {"-sc", "--shell-completion"}

# Words of the sweeper's.
FLAGS = {f"--{name.replace('_', '-')}": f"hydra.sweeper.{name}=true" for name in ("dry_run", "rerun", "keep", "detach")}
FLAGS["--continue"] = "hydra.sweeper.go_on=true"


def normalised(words: Sequence[str]) -> list[str]:
    """A command's words with --multirun first, wherever (and whether) -m stood among them.

    Example:
        >>> normalised(["seed=1,2", "-m", "model=mlp"])
        ['--multirun', 'seed=1,2', 'model=mlp']
        >>> normalised(["--dry-run", "experiment=flatness_interp"])
        ['--multirun', 'hydra.sweeper.dry_run=true', 'experiment=flatness_interp']
    """
    typed = [FLAGS.get(word, word) for word in words if word not in ("-m", "--multirun")]
    rest = settable(zipped(joined(typed)))
    other = any(word.split("=")[0] in _OTHER_MODES or re.fullmatch(r"hydra\.mode=RUN", word) for word in rest)
    return rest if other else ["--multirun", *apart(rest)]


def completes(words: Sequence[str], conf: Path) -> bool:
    """Print what the word that is being typed may become, if that is nothing that Hydra completes; else False.

    Hydra completes groups, their options and settings, but no option of a group in a folder (experiment=min_ratio/cnn),
    and it refuses a line with options of train.py's own: they are taken out of the line.
    """
    line = os.environ.get("COMP_LINE", "")
    if not _SHELL & set(words) or os.environ.get("COMP_POINT") != str(len(line)):
        return False
    *before, last = line.split(" ")
    if last.startswith("-"):
        print(
            *(
                option
                for option in (*FLAGS, ZIP, "--cfg", "--config-dir", "--help", "--version")
                if option.startswith(last)
            )
        )
        return True
    group, _, option = last.partition("=")
    if "/" in option and (known := options(group, conf)):
        print(*(f"{group}={one}" for one in known if one.startswith(option)))
        return True
    line = " ".join([*(word for word in before if word not in FLAGS), last])
    os.environ |= {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    return False


def refuse_slips(words: Sequence[str], conf: Path) -> None:
    """Refuse what is no word of Hydra's, or would be taken for something else, before anything slow is imported.

    Raises:
        ConfigError: one line a slip, with its remedy.
    """
    if _SHELL & set(words):  # the words are still being typed
        return
    if found := list(slips(joined(words), conf, [*FLAGS, ZIP, "-m", "--multirun"])):
        raise ConfigError("\n".join(found))


def say_losses(words: Sequence[str], conf: Path) -> None:
    """Print what a command's words leave out without saying so."""
    if line := left_out(words, conf, own_folder(words)):
        print(line, file=sys.stderr, flush=True)


def with_budget(words: Sequence[str], conf: Path) -> list[str]:
    """The words of `--cfg job` with what a budget sets and a typed class drops, else the sweeper's to find out."""
    asked_for = any(word.startswith("budget=") or "_target_" in word for word in words)
    if not asked_for or not {"--cfg", "-c"} & {w.split("=")[0] for w in words}:
        return list(words)
    from hydra import compose, initialize_config_dir
    from hydra._internal.utils import get_args_parser
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from hw1.settings.budget import budget_words, limited

    words = settable(words)
    asked = get_args_parser().parse_args(words)
    also = [f"hydra.searchpath=[file://{asked.config_dir}]"] if asked.config_dir else []
    keys = {word.lstrip("+~").partition("=")[0] for word in asked.overrides}
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose("train", overrides=[*asked.overrides, *also])
        loader = GlobalHydra.instance().config_loader()
    settings: Any = OmegaConf.to_container(config, resolve=True)
    own = [word for word in budget_words(settings) if word.partition("=")[0] not in keys]
    own = [
        word for word in own if "," not in re.sub(r"\[.*\]|\(.*\)", "", word)
    ]  # a run has one value of what is swept
    keys |= {word.partition("=")[0] for word in own}
    dropped = drop(settings, leftovers(settings, asked.overrides, lambda group: shared_settings(loader, group)))
    own += [f"{key}={value}" for key, value in limited(settings, keys).items()]
    at = list(words).index(asked.overrides[0])  # words of one kind must stand together
    end = at + len(asked.overrides)
    return [*words[:at], *own, *words[at:end], *dropped, *words[end:]]


def job_line(order: Order, folder: Path, taken: Sequence[Taken], ended: int) -> str:
    """What to say when a job of a sweep has ended: count, name, result, measures, time left.

    Args:
        order: of the command that launched it.
        folder: of the run.
        taken: the measures that the job took.
        ended: how many of the command's jobs have, this one too.
    """
    from hw1.runs import Run

    left = max(0, order.launched - ended)
    at_work = min(order.workers - 1, left) / 2  # of each that is at work, half is done, on average
    seconds = max(0.0, time.time() - order.launched_at) / (max(1, ended) + at_work) * (left - at_work)
    done = min(order.runs, order.runs - order.launched + ended)  # one that was launched again may count twice
    run = Run(folder)
    result = run.result
    parts = []
    if result["status"] != "complete":
        parts.append(f"FAILED: {result['error']}")
    elif order.trains:
        metrics = [f"{name} {_value(value)}" for name, value in result["metrics"].items() if name.startswith("test/")]
        parts.append(", ".join(metrics) + f" in {duration(result['seconds'])}")
    if good := [one for one in taken if not one.error]:
        names, spent = ", ".join(one.name for one in good), sum(one.seconds for one in good)
        parts.append(f"measured {names} in {duration(spent)}")
    parts += [f"measures.{one.name} FAILED: {one.error}" for one in taken if one.error]
    text = f"[{done}/{order.runs}] {run.slug}: " + ("; ".join(parts) or "measured already")
    return text + (f"; about {duration(seconds)} left" if left else "")


def _value(value: float | list[float]) -> str:
    """A metric; of several members the median and the range."""
    if not isinstance(value, list):
        return f"{value:.4f}"
    ordered = sorted(number for number in value if number == number)
    if not ordered:
        return "nan"
    return f"{statistics.median(ordered):.4f} ({ordered[0]:.4f} to {ordered[-1]:.4f}, n = {len(value)})"


def quoted(text: str) -> str:
    """A text as one word of a command to Hydra: in single quotes, those inside escaped.

    To Hydra a backslash is one but before a quote, where it is doubled.
    """
    return "'" + re.sub(r"\\+(?='|\Z)", lambda found: 2 * found[0], text).replace("'", "\\'") + "'"


def fail(error: BaseException, full: bool) -> None:
    """Print an error, one line a problem, and leave with exit code 1; with the traceback if `full`.

    Raises:
        SystemExit: always.
    """
    if full:
        raise error
    say(*(f"error: {line}" for line in named(explain(error), sys.argv[1:]).splitlines()), file=sys.stderr)
    sys.exit(1)
