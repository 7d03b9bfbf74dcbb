"""What others raise, in one line a problem: the key, what was got, what is expected. Imports little."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hw1.files import explained
from hw1.records import DamagedError
from hw1.settings.conf import folders_of, options_of, options_with, shipped, unknown_option
from hw1.settings.construct import takes, target_of
from hw1.settings.identity import ConfigError
from hw1.slips import elsewhere, in_file, missing_value, unknown_function
from hw1.typed import training

# Keys at the top that a command does not set.
_NOT_TYPED = ("hydra", "sweep", "measured_sweep", "about")

# OmegaConf's words for what a setting of Hydra's own may be.
_KINDS = {"Integer": "an integer", "Float": "a number", "Boolean": "true or false"}

# Groups of several nodes by name.
_SEVERAL = ("callbacks", "logger", "measures", "metrics")


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
    known = list(getattr(error, "options", None) or (loader.get_group_options(group) if loader else options(group)))
    if group == "callbacks" and option in options("measures"):
        return f"callbacks: got {option}, which is a measure; expected measures=[{option}], which trains nothing again"
    return unknown_option(group, option, known)


def _groups() -> set[str]:
    """Names of groups, hw1's and the project's own."""
    return {path.name for folder in folders_of(shipped()) for path in folder.iterdir() if path.is_dir()}


def options(group: str, conf: Path | None = None) -> list[str]:
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
        if parts[0] == "callbacks" and len(parts) > 2 and parts[1] in options("measures"):
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
    if typed := re.search(r"Value '(.*)' of type '\w+' could not be converted to (\w+)", f"{text} {reason}"):
        merged = re.search(r"override (\S+?)=", text)
        return f"{merged[1] if merged else word}: got {typed[1]}, expected {_KINDS.get(typed[2], typed[2])}"
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
