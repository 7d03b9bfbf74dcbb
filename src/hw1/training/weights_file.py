"""Weights that were trained elsewhere, read without running code, and fitted to a network. No torch until it reads.

PyTorch's own files are read with `weights_only`, everything else is safetensors: a file that could only be read by
running what is pickled in it is refused.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hw1.files import file_digest
from hw1.seeds import digest
from hw1.settings import ConfigError
from hw1.stored_json import read_json
from hw1.tensor_files import refuse_claims

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"  # of a folder that HuggingFace wrote
# What Lightning, DataParallel, torch.compile and wrappers put before names, and where checkpoints keep the weights.
PREFIXES = ("net.", "model.", "module.", "_orig_mod.", "network.")
INSIDE = ("state_dict", "model_state_dict", "model", "module", "net", "weights")
_RENAMED = 4  # prefixes deep
_SHOWN = 6  # names a line
_COUNTER = "num_batches_tracked"  # of batch norm: files of old versions lack it, and no output depends on it


def files_of(path: Path) -> list[Path]:
    """The files that hold the tensors of a weights file, or of a folder that HuggingFace wrote.

    Raises:
        ConfigError: it is neither.
    """
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise ConfigError(f"weights: got {path}, expected {', '.join(SUFFIXES)}, or a folder with {SINGLE}")
        return [path]
    if (path / SINGLE).is_file():
        return [path / SINGLE]
    if not (path / INDEX).is_file():
        there = "a folder without" if path.is_dir() else "nothing that is there, nor"
        raise ConfigError(
            f"weights: got {path}, {there} {SINGLE} or {INDEX}; expected a file ({', '.join(SUFFIXES)}), or a folder "
            "as model.save_pretrained(FOLDER, safe_serialization=True) writes it"
        )
    try:
        names = sorted(set(read_json(path / INDEX)["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(f"weights: got {path / INDEX}, which is no index of shards: {error}") from error
    wrong = [name for name in names if Path(name).name != name or Path(name).suffix != ".safetensors"]
    if lacking := wrong or [name for name in names if not (path / name).is_file()]:
        raise ConfigError(f"weights: got {path}, whose index names {lacking[0]}, expected a safetensors file in it")
    return [path / name for name in names]


def identity(path: Path) -> str:
    """Hex SHA-256 of a weights file; of several shards, of their names and hashes."""
    files = files_of(path)
    if len(files) == 1:
        return file_digest(files[0])
    return digest([[file.name, file_digest(file)] for file in files])


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, on the CPU.

    Raises:
        ConfigError: it cannot be read, or not without running code.
    """
    found: dict[str, Tensor] = {}
    for file in files_of(path):
        found |= _safetensors(file) if file.suffix == ".safetensors" else _state_dict(file)
    return found


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        refuse_claims(file)
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ConfigError(f"weights: got {file}, which is no whole safetensors file: {error}; expected one") from error


def _state_dict(file: Path) -> dict[str, Tensor]:
    import torch

    try:
        refuse_claims(file)
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        said = next((line for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line), "")
        raise ConfigError(
            f"weights: got {file}, which holds more than tensors and is not read, as that could run any code "
            f"({' '.join(said.split())[:160] or 'damaged, or no file of torch.save'}); expected a state_dict: "
            "torch.save(net.state_dict(), FILE)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(f"weights: got {file}, which cannot be read ({reason}); expected a state_dict") from error
    for inner in (content, *(_entry(content, name) for name in INSIDE)):
        if isinstance(inner, Mapping) and inner and all(isinstance(value, torch.Tensor) for value in inner.values()):
            return {str(name): value.detach() for name, value in inner.items()}
    held = f"the entries {', '.join(map(str, list(content)[:8]))}" if isinstance(content, Mapping) else type(content)
    raise ConfigError(
        f"weights: got {file}, which holds {held}; expected tensors by name, or those below {', '.join(INSIDE)}"
    )


def _entry(content: object, name: str) -> object:
    return content.get(name) if isinstance(content, Mapping) else None


def fitted(net: nn.Module, found: Mapping[str, Tensor], of: str, prefix: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file under the names of a network.

    Where the names do not fit as they are, prefixes that all of them share are taken off, or the one that all names of
    the network share is put before them, if they fit then.

    Args:
        net: on any device, "meta" too; it is not changed.
        found: what the file holds.
        of: what the file is called in messages.
        prefix: of the names that belong to the network, which is taken off; the others are left out. None to look.

    Raises:
        ConfigError: names, shapes, kinds of number or tied weights differ, or a tensor is not finite; in one line.
    """
    if prefix:
        own = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
        if not own:
            raise ConfigError(
                f"prefix: got {prefix}, with which no name in {of} begins; expected what its names begin with: "
                f"{_some(found, found)}"
            )
        return _checked(net, own, of)
    wanted = net.state_dict()
    best: tuple[int, dict[str, Tensor]] | None = None
    for names in _renamings(list(found), list(wanted)):
        missing, unexpected = _difference(net, names)
        if best is None or len(missing) + len(unexpected) < best[0]:
            renamed = dict(zip(names, found.values(), strict=True))
            best = len(missing) + len(unexpected), renamed
    assert best is not None
    return _checked(net, best[1], of)


def _renamings(names: Sequence[str], wanted: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The names as they are, then with prefixes taken off or put before them, the least changed first."""
    waiting, seen = [(tuple(names), 0)], set()
    shared = {name.partition(".")[0] + "." for name in wanted if "." in name}
    common = shared.pop() if len(shared) == 1 and all("." in name for name in wanted) else None
    while waiting:
        now, depth = waiting.pop(0)
        if now in seen or len(set(now)) < len(now):
            continue
        seen.add(now)
        yield now
        if depth < _RENAMED and now:
            for prefix in PREFIXES:
                if all(name.startswith(prefix) for name in now):
                    waiting.append((tuple(name.removeprefix(prefix) for name in now), depth + 1))
            if any("._orig_mod." in name for name in now):  # a part alone was compiled
                waiting.append((tuple(name.replace("._orig_mod.", ".") for name in now), depth + 1))
            if common and not any(name.startswith(common) for name in now):
                waiting.append((tuple(common + name for name in now), depth + 1))


def _tied(net: nn.Module) -> list[list[str]]:
    """The names of every parameter."""
    names: dict[int, list[str]] = {}
    for name, parameter in net.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return list(names.values())


def _difference(net: nn.Module, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """(missing, unexpected) names; of tied weights one is enough."""
    there, wanted = set(names), list(net.state_dict())
    twins = {name: group for group in _tied(net) for name in group}
    missing = [
        name
        for name in wanted
        if name not in there and not name.endswith(_COUNTER) and not there & set(twins.get(name, ()))
    ]
    return missing, [name for name in names if name not in set(wanted)]


def _checked(net: nn.Module, own: dict[str, Tensor], of: str) -> dict[str, Tensor]:
    """The same, where all of it fits."""
    wanted = net.state_dict()
    missing, unexpected = _difference(net, list(own))
    both = [name for name in own if name in wanted]
    lines = []
    if missing:
        lines.append(f"missing are {_some(missing, wanted)}")
    if unexpected:
        lines.append(f"unexpected are {_some(unexpected, own)}")
    if other := [name for name in both if own[name].shape != wanted[name].shape]:
        shapes = [f"{name} {list(own[name].shape)} instead of {list(wanted[name].shape)}" for name in other]
        lines.append(f"another shape have {_listed(shapes)}")
    if kinds := [name for name in both if own[name].is_floating_point() != wanted[name].is_floating_point()]:
        lines.append(f"other numbers hold {_listed([f'{name} ({own[name].dtype})' for name in kinds])}")
    groups = [[name for name in group if name in own] for group in _tied(net)]
    if not lines and (two := [group for group in groups if any(_differ(own[group[0]], own[one]) for one in group)]):
        lines.append(f"tied there, and different in the file, are {_listed([' and '.join(group) for group in two])}")
    if not lines and (bad := [name for name in both if not own[name].isfinite().all()]):
        lines.append(f"not finite are {_some(bad, own)}")
    if lines:
        raise ConfigError(f"weights: got {of}, which does not fit the model: {'; '.join(lines)}; expected its own")
    return own


def _differ(one: Tensor, other: Tensor) -> bool:
    import torch

    return one is not other and not torch.allclose(one.double(), other.double(), rtol=0, atol=0, equal_nan=True)


def _some(names: Sequence[str] | Mapping[str, Tensor], of: Mapping[str, Tensor]) -> str:
    return _listed([f"{name} {list(of[name].shape)}" for name in names])


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more
