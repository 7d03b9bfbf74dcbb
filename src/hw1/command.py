"""What train.py understands and says: its words in order, every error in one line, the end of a job. Imports little.

It has more than 300 lines because the sentences for what others raise are to be found in one place.
"""

from __future__ import annotations

import difflib
import os
import re
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw1.files import explained
from hw1.help import own_folder
from hw1.records import DamagedError
from hw1.replaced import drop, leftovers, settable, shared_settings
from hw1.settings.conf import folders_of, options_of, options_with, shipped, unknown_option
from hw1.settings.construct import takes, target_of
from hw1.settings.identity import ConfigError
from hw1.settings.local import named
from hw1.slips import elsewhere, in_file, left_out, missing_value, slips, unknown_function
from hw1.stages import duration
from hw1.sweep_words import ZIP, apart, joined, zipped
from hw1.terminal import say
from hw1.typed import training

if TYPE_CHECKING:
    from hw1.measures.take import Taken
    from hw1.runs.order import Order

# Hydra's other modes; with one of them the command is no sweep.
_OTHER_MODES = ("--cfg", "-c", "--info", "-i", "--run", "-r", "--shell-completion", "-sc", "--hydra-help", "--version")

_SHELL = {"-sc", "--shell-completion"}

# Keys at the top that a command does not set.
_NOT_TYPED = ("hydra", "sweep", "measured_sweep", "about")

# Groups of several nodes by name.
_SEVERAL = ("callbacks", "logger", "measures", "metrics")

# Words of the sweeper's.
FLAGS = {f"--{name.replace('_', '-')}": f"hydra.sweeper.{name}=true" for name in ("dry_run", "rerun", "keep")}
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
    if "/" in option and (options := _options(group, conf)):
        print(*(f"{group}={one}" for one in options if one.startswith(option)))
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


def explain(error: BaseException, loader: Any = None) -> str:
    """An exception in one line a problem: the key, what was got, what is expected.

    Args:
        error: anything that composing or running raised.
        loader: Hydra's config loader, to list the options of a group.
    """
    if isinstance(error, ConfigError | DamagedError):
        return str(error)
    name = type(error).__name__
    if name == "MissingConfigException":
        return _missing_option(error, loader)
    if name in ("ConfigCompositionException", "OverrideParseException"):
        return _refused_override(error)
    if name == "MissingMandatoryValue" and (key := getattr(error, "full_key", None)):
        return missing_value(str(key), shipped())
    text = _one_line(str(error))
    if name == "InstantiationException" and isinstance(error.__cause__, ValueError):  # of a launcher, say
        return _one_line(str(error.__cause__))
    if name == "SearchPathException" and (folder := re.search(r"config directory '(.+)' not found", text)):
        return f"--config-dir: got {folder[1]}, expected a folder of settings"
    if name == "InterpolationKeyError" and (key := re.search(r"'([^']+)' not found", text)):
        return f"{key[1]}: got no value, to which others refer; expected {key[1]}=VALUE"
    if (mark := getattr(error, "problem_mark", None)) is not None:
        return f"{mark.name}: {getattr(error, 'problem', text)} (line {mark.line + 1}); expected YAML: correct it"
    if "must be a string or a list. Got" in text:  # of a group, which Hydra does not name
        return f"{_without_option() or 'group'}: got no option, expected one: {training()} --help lists them"
    if said := explained(error.__cause__ if "configure handler" in text else error):  # the cause: what run.log met
        return said
    if isinstance(error, FileNotFoundError) and text:  # hw1's own, which says what is not there
        return text
    return f"{name}: {text}" if text else name


def _without_option() -> str:
    """The first word of this command that picks no option of a group, as `model=null`; "" for none."""
    words = (word.lstrip("+~").partition("=") for word in sys.argv[1:])
    picked = (word for word in words if word[0].partition("@")[0] in _groups())
    return next((key for key, _, value in picked if not re.match(r"[A-Za-z_\[{]", value) or value == "null"), "")


def _missing_option(error: BaseException, loader: Any) -> str:
    group, _, option = str(getattr(error, "missing_cfg_file", "")).rpartition("/")
    if not group:
        return _one_line(str(error))
    options = list(getattr(error, "options", None) or (loader.get_group_options(group) if loader else _options(group)))
    if group == "callbacks" and option in _options("measures"):
        return f"callbacks: got {option}, which is a measure; expected measures=[{option}], which trains nothing again"
    return unknown_option(group, option, options)


def _groups() -> set[str]:
    """Names of groups, hw1's and the project's own."""
    return {path.name for folder in folders_of(shipped()) for path in folder.iterdir() if path.is_dir()}


def _options(group: str, conf: Path | None = None) -> list[str]:
    """The options of a group, hw1's and the project's own."""
    return sorted({one for folder in folders_of(conf or shipped()) for one in options_of(folder / group)})


def _refused_override(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None and not hasattr(cause, "full_key"):
        cause = cause.__cause__ or cause.__context__
    text = str(error)
    unknown = re.search(r"override '(.*)'\s.*Unknown function '(\w+)'\s*Available: (\S+)", text, re.DOTALL)
    if unknown:
        return unknown_function(unknown[1], unknown[2], unknown[3].split(","))
    if said := in_file(text):
        return said
    if removed := re.search(r"Could not delete from config\. '([^']+)' does not exist", text):
        return f"~{removed[1]}: no such setting to remove; see {training()} --help"
    missing = re.search(r"Could not override '([^']+)'", text)
    if missing:
        key = missing[1]
        if key in _groups():
            ways = f"an option of the group, {{_target_: module.Class}}, or one setting a word, as {key}.KEY=VALUE"
            ways = f"+{key}.NAME._target_=module.Class, which adds one" if key in _SEVERAL else ways
            return f"{key}: got a mapping, expected {ways}"
        parts = key.split(".")
        if parts[0] == "callbacks" and len(parts) > 2 and parts[1] in _options("measures"):
            asked = f"measures=[{parts[1]}] measures.{'.'.join(parts[1:])}=..."
            return f"{key}: no such setting; {parts[1]} is a measure: expected {asked}"
        node = getattr(cause, "parent_node", None)
        known = [str(name) for name in node] if node is not None and hasattr(node, "keys") else []
        known = [name for name in known if name not in _NOT_TYPED]
        # The exception names the first part of the path that is missing; suggest only among its siblings.
        wrong = str(getattr(cause, "key", key))
        close = [key.replace(wrong, one, 1) for one in difflib.get_close_matches(wrong, known, 1)]
        if node is not None and hasattr(node, "_get_root"):
            close = close or elsewhere(key, _content(node._get_root()))
        if key == f"{parts[0]}.{wrong}" and (target := _target_with(node, wrong)):
            return f"{key}: no option sets it; expected +{key}=..., with a plus, a setting of {target}"
        expected = f"did you mean {' or '.join(close[:3])}?" if close else f"expected one of: {', '.join(known)}"
        if not known:
            expected = f"see {training()} --help"
        if not close and len(parts) == 2 and (have := options_with(parts[0], parts[1], folders_of(shipped()))):
            expected = f"expected {' or '.join(f'{parts[0]}={one}' for one in have)}, which {_has(have)} it"
        return f"{key}: no such setting; {expected} (+{key}=... adds a new one)"
    word = getattr(error, "override", None)
    if word and word not in text:
        text = f"{word}: {text}"
    reason = _one_line(str(cause) if cause is not None and cause is not error else "")
    remedy = "; expected another value" if "converted to" in text or "while evaluating" in text else ""
    return _one_line(text) + (f": {reason}" if reason and reason not in text else "") + remedy


def _target_with(node: Any, name: str) -> str:
    """What a node names if it takes a setting, which is imported to find out; else ""."""
    try:
        return str(node["_target_"]) if takes(target_of(_content(node), "node"), name) else ""
    except (ConfigError, TypeError, KeyError):  # no node
        return ""


def _has(options: Sequence[str]) -> str:
    return "has" if len(options) == 1 else "have"


def _content(config: Any) -> dict[str, Any]:
    """Settings as plain containers, whatever is missing in them."""
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(config)
    return {str(name): value for name, value in plain.items()}


def _one_line(text: str) -> str:
    """A message without Hydra's hints about where to read more."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not re.match(r"(full_key:|object_type=|Set the environment|See https)", line)]
    return " ".join(kept)


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
    seconds = max(0.0, time.time() - order.launched_at) / max(1, ended) * left
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
