"""What a training says of itself: its help, that of an experiment, its version, its first line. No Hydra, no torch."""

from __future__ import annotations

import platform
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hw1
from hw1.settings.about import About, experiments
from hw1.settings.conf import LOCAL, folders_of, mapping, merged, options_of, picked, project_conf, read_yaml
from hw1.typed import program, training

WIDTH = 80
_BESIDES = ("defaults", "about", "hydra", "name", "study", "quick", "measures")  # shown in their own place, or not


def help_text(conf: Path, own: Path | None = None) -> str:
    """Commands, experiments with their question and time, groups with their options.

    Args:
        conf: the folder of settings.
        own: the user's beside it (`--config-dir`).
    """
    folders = folders_of(conf, own)
    groups: dict[str, list[str]] = {}
    for folder in folders:
        for group in sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name != "hydra"):
            groups[group] = sorted({*groups.get(group, []), *options_of(folder / group)})
    groups.pop("experiment", None)
    launchers = [name for folder in folders for name in options_of(folder / "hydra" / "launcher")]
    groups["hydra/launcher"] = ["parallel", "basic", *launchers]
    lines = [
        f"usage: {training()} [experiment=NAME] [GROUP=OPTION ...] [KEY=VALUE ...]",
        "",
        *_wrapped(
            "Trains the runs that a command asks for (several values of a key: a sweep), then measures and draws. A "
            "finished run is reused, an interrupted one goes on. Results: multirun/<name>/"
        ),
        "",
        "examples:",
        f"  {training()} experiment=flatness_interp",
        f"  {training()} experiment=flatness_interp seed=1,2,3 init=shared",
        f"  {training()} model=mlp dataset=digits optimizer.lr=1e-3,1e-2",
        "",
        "experiments (experiment=NAME; experiment=NAME --help says more of one):",
        *_experiments({name: about for folder in folders[::-1] for name, about in experiments(folder).items()}),
        "",
        "groups (GROUP=OPTION):",
        *(line for name, options in groups.items() for line in _row(f"{name}=", options, 18)),
        "",
        "also:",
        *_row("--dry-run", "list the runs, estimate minutes and disk, and stop"),
        *_row("budget=quick", "less data and fewer steps: does it work at all?"),
        *_row("--detach", "leave when all runs are in a cluster's queue (hydra/launcher=submitit_slurm)"),
        *_row("--cfg job", "print the settings, and stop"),
        *_row("--zip A,B", "the values of these keys go side by side, instead of multiplying"),
        *_row("hydra/launcher=ray", "where runs train: on a Ray cluster; joblib, basic: see docs/sweeps.md, Launchers"),
        *_row("--continue", "longer runs begin where finished ones with fewer epochs stopped"),
        *_row(
            "--rerun, --keep", "train runs again, or take them as they are, whose model or other code of yours changed"
        ),
        *(
            _row(str(path), "settings of this machine, which stand above those of an experiment")
            if (path := (project_conf() or conf) / LOCAL).is_file()
            else []
        ),
        *_row("--version", "of hw1 and of what it stands on"),
        *_row(f"{program()} --help", "commands on finished sweeps"),
    ]
    return "\n".join(lines)


def experiment_help(name: str, conf: Path, own: Path | None = None) -> str:
    """One experiment: title, question, what to expect, what it sweeps, sets, measures and asks.

    What it takes over from another experiment is included; the defaults of the groups are not.

    Raises:
        ConfigError: there is no such experiment, or a file is no YAML.
    """
    folders = folders_of(conf, own)
    node = merged(name, folders)
    about = About.of(node.get("about"))
    words = mapping(mapping(node.get("hydra")).get("sweeper")).get("params")
    swept = {key: value for key, value in mapping(words).items() if value is not None}
    groups = picked(name, folders)
    measures = [one for one in groups.pop("measures", []) if one != "none"]
    study = mapping(node.get("study"))
    settings = dict(_leaves({key: value for key, value in node.items() if key not in _BESIDES}))
    settings |= {key: v for key, v in _leaves({"measures": node.get("measures", {})}) if key.split(".")[1] in measures}
    variants = [one for folder in folders for one in options_of(folder / "experiment") if one.startswith(f"{name}/")]
    asked = [f"{key}={_shown(v)}" for key, v in _leaves({k: v for k, v in study.items() if k != "_target_"})]
    count = _count(swept)
    rows: dict[str, str | list[str]] = {
        "question": about.question,
        "expect": about.expect,
        "swept": [part for key, value in swept.items() for part in _fitting(f"{key}={value}")],
        "runs": "" if count is None else str(count),
        "groups": " ".join(f"{key}={','.join(options)}" for key, options in groups.items()),
        "settings": [f"{key}={_shown(value)}" for key, value in settings.items()],
        "measures": ", ".join(measures),
        "study": " ".join([str(study.get("_target_", "")), *asked]),
        "quick": [
            *(
                [f"budget=quick takes {about.quick}"] if about.quick and "/" not in name else []
            ),  # a variant takes another time
            *(f"{key}={_shown(value)}" for key, value in mapping(node.get("quick")).items()),
        ],
        "variants": " ".join(variants),
        "command": f"{training()} experiment={name}",
    }
    lines = _wrapped(f"{name}: {about.title}" if about.title else name)
    for label, said in rows.items():
        parts = [said] if isinstance(said, str) else said
        for number, part in enumerate(part for part in parts if part):
            lines += _row("" if number else label, part, 12, indent="")
    return "\n".join(lines)


def help_for(words: Sequence[str], conf: Path) -> str:
    """The help that a command with --help asks for: of its experiments, or of all.

    Raises:
        ConfigError: there is no such experiment.
    """
    own = own_folder(words)
    named = [word.partition("=")[2] for word in words if word.startswith("experiment=")]
    names = [name for name in (named[-1].split(",") if named else []) if name not in ("", "null")]
    return "\n\n".join(experiment_help(name, conf, own) for name in names) or help_text(conf, own)


def start_line(words: Sequence[str], conf: Path) -> str:
    """What a command is about to run, before anything slow is imported; "" where Hydra will refuse it."""
    given = dict(word.partition("=")[::2] for word in words if "=" in word and not word.startswith("-"))
    name = given.pop("experiment", "")
    if sweep := given.get("measured_sweep"):
        return f"measuring: looking for what is missing in {sweep.strip(chr(39))}"
    others = " ".join(f"{key}={value}" for key, value in given.items() if key not in ("output", "hydra.launcher"))
    if not name:
        return textwrap.shorten(f"planning: {others or 'the default run'}", 2 * WIDTH, placeholder=" …")
    folders = folders_of(conf, own_folder(words))
    files = [file for folder in folders if (file := folder / "experiment" / f"{name}.yaml").is_file()]
    if not files:
        return ""
    about = About.of(read_yaml(files[0]).get("about"))
    time = about.expect.partition(";")[0].rstrip(".") if not others else ""  # other settings take another time
    said = [f"{about.title}{f' ({time})' if time else ''}" if about.title else "", f"with {others}" if others else ""]
    line = f"planning {name}: " + ("; ".join(filter(None, said)) or "its runs")
    return textwrap.shorten(line, 2 * WIDTH, placeholder=" …")


def version_text() -> str:
    """hw1's version, and of what its results depend on."""
    packages = ("torch", "lightning", "hydra-core")
    return f"hw1 {hw1.__version__} (" + ", ".join(
        [f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in packages)]
    ) + ")"  # fmt: skip


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:  # it is missing, or was never installed as a package
        return "not installed"


def own_folder(words: Sequence[str]) -> Path | None:
    """The folder that `--config-dir` names, if there is one."""
    for number, word in enumerate(words):
        option, _, value = word.partition("=")
        if option in ("--config-dir", "-cd"):
            folder = Path(value or "".join(words[number + 1 : number + 2]))
            return folder if folder.is_dir() else None
    return None


def split_values(text: str) -> list[str]:
    """The values of a word, at commas outside of brackets and quotes.

    Example:
        >>> split_values('[1,2],"a,b",range(1,3)')
        ['[1,2]', '"a,b"', 'range(1,3)']
    """
    found, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        else:
            depth += (letter in "[({") - (letter in "])}")
        if letter == "," and depth == 0 and not quote:
            found.append("")
        else:
            found[-1] += letter
    return found


# What an experiment's YAML says


def _experiments(found: Mapping[str, About]) -> Iterator[str]:
    """Each with its time and variants, and its question below."""
    for name, about in sorted(found.items()):
        if "/" in name:
            continue
        variants = [other.partition("/")[2] for other in sorted(found) if other.startswith(f"{name}/")]
        yield f"  {name}" + (f" ({about.time})" if about.time else "")
        yield from _wrapped(_question(about), "      ")
        yield from _wrapped(f"variants /{', /'.join(variants)}", "      ") if variants else []


def _question(about: About) -> str:
    """The question without where it was first asked."""
    return re.sub(r"(?<=\?) \([^()]*\)$", "", about.question) or about.title


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What is typed: unlike `hw1.settings.paths.leaves`, a node with a `_target_` whole, and a group's empty one."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value and "_target_" not in value:
            yield from _leaves(mapping(value), f"{prefix}{key}.")
        elif value not in ({}, None) or prefix:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_shown(one) for one in value) + "]"
    if isinstance(value, str) and re.search(r"[(),]", value):
        return f'"{value}"'
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _count(swept: Mapping[str, Any]) -> int | None:
    """The number of runs; None where Hydra's functions make the values."""
    number = 1
    for value in swept.values():
        parts = split_values(str(value))
        if any(re.match(r"\w+\(", part.strip()) for part in parts):
            return None
        number *= len(parts)
    return number


# Lines of the width of a terminal


def _fitting(word: str) -> list[str]:
    """A word with its values, in several lines where one is too long."""
    *others, last = split_values(word) if len(word) > WIDTH - 13 else [word]
    return [*(f"{one}," for one in others), last]


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDTH - 1, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def _row(label: str, said: str | Sequence[str], column: int = 24, indent: str = "  ") -> list[str]:
    """A label, and beside it a text or names with commas, in as many lines as it takes."""
    text = said if isinstance(said, str) else ", ".join(said)
    head = f"{indent}{label}".ljust(column)
    head += "" if head.endswith(" ") or not head else " "
    return textwrap.wrap(
        text, WIDTH - 1, initial_indent=head, subsequent_indent=" " * column,
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip
