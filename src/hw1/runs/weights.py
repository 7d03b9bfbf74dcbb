"""Weights on disk: the snapshots of a run, and reading them into networks."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hw1.inside import inside
from hw1.sealed import is_whole
from hw1.settings import ConfigError
from hw1.tensor_files import refuse_claims

if TYPE_CHECKING:
    from torch import Tensor, nn

_SNAPSHOT = re.compile(r"epoch=(\d+)\.safetensors")


@dataclass(frozen=True)
class Snapshots:
    """Weights along a run.

    Attributes:
        epochs: completed epochs at each of T snapshots, the initialisation (0) first.
        values: [T, P], or [T, *shape] of one layer's tensor; of a run with R members [T, R, P] or [T, R, *shape].
    """

    epochs: list[int]
    values: Tensor


def snapshot_files(run: Path, removed: Collection[str] = ()) -> dict[int, Path]:
    """The snapshots in a run's folder, by completed epochs.

    Args:
        run: the folder.
        removed: paths in it of files that are no longer there, whose places are wanted too.
    """
    found = {}
    for file in (*(inside(run, name) for name in removed), *(run / "snapshots").glob("*.safetensors")):
        if (match := _SNAPSHOT.fullmatch(file.name)) and file.parent.name == "snapshots":
            found[int(match[1])] = file
    return found


def removed_end(run: Path, removed: Collection[str], epochs: int) -> Path | None:
    """Where a run's final weights stood that were removed; None where they still stand, or no such are known.

    Args:
        run: the folder.
        removed: paths in it of files that are no longer there.
        epochs: that it trained.
    """
    checkpoint = run / "checkpoints" / "last.ckpt"
    stood = snapshot_files(run, removed).get(epochs, checkpoint)
    return stood if not stood.exists() and stood.relative_to(run).as_posix() in removed else None


def load(nets: Sequence[nn.Module], file: Path) -> None:
    """Read the members' weights into `nets` in place, from a snapshot or a checkpoint.

    Raises:
        ConfigError: the file is damaged or belongs to another network.
    """
    import torch
    from safetensors.torch import load_file, load_model

    from hw1.models import Members, side_by_side

    with readable(file):
        together = side_by_side(nets) if len(nets) > 1 else nets[0]
        if file.suffix != ".safetensors":
            if is_whole(file) is False:
                raise ValueError("it is not what was written")
            state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
            own = {n.removeprefix("net."): value for n, value in state.items() if n.startswith("net.")}
            together.load_state_dict(own or state)  # a LightningModule of the user's own may be the network itself
        elif isinstance(together, Members):
            together.load_stacked(load_file(file))
        else:
            load_model(together, str(file))
        if isinstance(together, Members):
            tensors = together.stacked()
            for member, net in enumerate(nets):
                net.load_state_dict({name: value[member] for name, value in tensors.items()})


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """What a damaged file makes of reading it becomes a ConfigError that names the file and the remedy."""
    try:
        refuse_claims(file)
        yield
    except KeyError:  # a name that the caller asked for
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{file} cannot be read as this run's weights ({reason}); delete the run's folder and train it again"
        ) from error
