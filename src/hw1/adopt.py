"""`python -m hw1 adopt ...`: the words of a command on weights that were trained elsewhere, as the sweeper takes them.

No torch: files are found and named here, read by `hw1.training.adopted`.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hw1.command import quoted
from hw1.job import command
from hw1.metrics import ADOPTED
from hw1.settings import ConfigError
from hw1.settings.conf import PROJECT, folders_of, merged, shipped
from hw1.training.weights_file import SUFFIXES, files_of

_OWN = ("weights", "prefix", "study")  # words that are not handed on as they are
# Instead of what an experiment or a budget decides for trainings, and says of them.
_OF_TRAININGS = {
    **{"hydra.sweeper.params": "null", "replicas": "1", "seed": "0"},
    **{f"about.{key}": "''" for key in ("title", "question", "expect")},
}
_HEEDED_IN_TRAINING = ("optimizer", "scheduler", "transform", "objective")
_LENGTHS = tuple(f"trainer.{name}" for name in ("max_epochs", "max_steps", "min_epochs", "min_steps", "max_time"))


def adopt(words: Sequence[str], config_dir: str | None, dry_run: bool) -> None:
    """Hand the weights over to Hydra, whose launchers then read and evaluate them.

    Args:
        words: as for `words_of`.
        config_dir: a folder of settings of the user's own, beside conf/.
        dry_run: whether to say what would be made, and stop.
    """
    os.environ[PROJECT] = str(Path.cwd())  # whose conf/ may hold the experiment that is named
    flags = [*(["--config-dir", config_dir] if config_dir else []), *(["--dry-run"] if dry_run else [])]
    own = Path(config_dir) if config_dir else None
    made = words_of(words, shipped(), own)
    if line := of_trainings(words):
        print(line, file=sys.stderr, flush=True)
    command(Path.cwd(), [*flags, *made])


def of_trainings(words: Sequence[str]) -> str:
    """What to say of typed settings that only a training would heed; "" where there are none."""
    keys = [word.lstrip("+~").partition("=")[0] for word in words if "=" in word]
    heard = [key for key in keys if key.partition(".")[0] in _HEEDED_IN_TRAINING or key in _LENGTHS]
    if not heard:
        return ""
    return f"{', '.join(heard)}: nothing is trained here; they are recorded, and part of the runs' keys"


def words_of(words: Sequence[str], conf: Path, own: Path | None = None) -> list[str]:
    """The words for train.py that make runs of weights files.

    Args:
        words: as typed: `weights=PATTERN`, `prefix=net.`, `study=EXPERIMENT`, and everything that train.py takes.
        conf: the folder of settings.
        own: a folder of the user's own beside it.

    Raises:
        ConfigError: no weights are named, none are there, or the study is none that is known.
    """
    typed = {word.lstrip("+").partition("=")[0]: word.partition("=")[2] for word in words if "=" in word}
    if stray := [
        word for word in words if "=" not in word and word[:1] not in ("-", "~", "+") and _names_weights(word)
    ]:
        several = ",".join([typed.get("weights", ""), *stray]).strip(",")
        raise ConfigError(
            f"weights: got {' '.join(stray)} as words of their own, as a shell makes of an unquoted *; expected "
            f"weights={several}, or quotes around a pattern: weights='runs/*.pt'"
        )
    if not typed.get("weights"):
        raise ConfigError("weights: got none, expected files or folders, as weights='runs/*.pt'")
    folder, files = _split(found(typed["weights"]))
    prefix = quoted(typed["prefix"]) if typed.get("prefix") else "null"
    made = [f"adopted={{folder:{quoted(str(folder))},file:null,sha256:null,prefix:{prefix}}}"]
    made.append(f"{ADOPTED}={','.join(quoted(file) for file in files)}")
    first: list[str] = []
    folders = folders_of(conf, own)
    node: Any = merged(typed["experiment"], folders).get("study") if typed.get("experiment") else None
    if name := typed.get("study"):
        try:
            node = merged(name, folders).get("study")
        except ConfigError as error:  # which is that of the word that was typed
            raise ConfigError(str(error).replace("experiment:", "study:", 1)) from error
        first += [f"study={_flow(node)}"] if node else []  # settings of it may follow
    if isinstance(node, Mapping) and "pair_by" in node and "study.pair_by" not in typed:
        made.append(f"study.pair_by={ADOPTED}")
        if len(files) < 2:
            raise ConfigError(f"weights: got {files[0]} alone, expected two or more, to look at what lies between them")
    given = {"experiment", "budget"} & set(typed)
    defaults = {"name": "adopted", "callbacks": "none"} | (_OF_TRAININGS if given else {})
    made += [f"{key}={value}" for key, value in defaults.items() if key not in typed]
    return [*first, *(word for word in words if word.lstrip("+").partition("=")[0] not in _OWN), *made]


def found(patterns: str) -> list[Path]:
    """The weights files and folders that match, in natural order.

    Args:
        patterns: paths with `*`, `?`, `[...]` and `**`; several with commas between them.

    Raises:
        ConfigError: a pattern matches none.
    """
    paths: dict[Path, None] = {}
    for pattern in [patterns] if Path(patterns).exists() else patterns.strip("[]").split(","):
        pattern = os.path.expanduser(pattern.strip().strip("'\""))
        matched = (
            [Path(pattern)] if Path(pattern).exists() else [Path(one) for one in glob.glob(pattern, recursive=True)]
        )
        # What a pattern sweeps up besides is not meant; a name that was typed is, and says what is wrong with it.
        if len(matched) > 1:
            matched = [path for path in matched if path.suffix in SUFFIXES or (path.is_dir() and _is_folder(path))]
        if not matched:
            raise ConfigError(f"weights: got {pattern}, which names no weights here; expected a path from {Path.cwd()}")
        paths |= dict.fromkeys(path.absolute() for path in matched)
    for path in paths:
        files_of(path)
    return sorted(paths, key=lambda path: [_natural(part) for part in path.parts])


def _names_weights(word: str) -> bool:
    return Path(word).suffix in SUFFIXES or "/" in word or Path(word).is_dir()


def _is_folder(path: Path) -> bool:
    try:
        return bool(files_of(path))
    except ConfigError:
        return False


def _split(paths: Sequence[Path]) -> tuple[Path, list[str]]:
    """The innermost folder that all share, and each path below it, which is what its run is called."""
    folder = Path(os.path.commonpath([path.parent for path in paths]))
    return folder, [path.relative_to(folder).as_posix() for path in paths]


def _natural(text: str) -> list[tuple[int, str]]:
    """Text that sorts `seed2` before `seed10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text) if part]


def _flow(node: Any) -> str:
    """A node of settings as the value of a word."""
    if isinstance(node, Mapping):
        return "{" + ",".join(f"{key}:{_flow(value)}" for key, value in node.items()) + "}"
    if isinstance(node, list):
        return "[" + ",".join(map(_flow, node)) + "]"
    if node is None or isinstance(node, bool):
        return {None: "null", True: "true", False: "false"}[node]
    return quoted(node) if isinstance(node, str) else str(node)
