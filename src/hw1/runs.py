"""Reading and finding runs and sweeps. Importing it is cheap: torch and pandas load on first use.

Example:
    >>> sweep = Sweep.read("multirun/flatness_interp")              # doctest: +SKIP
    >>> sweep.table("test/accuracy")                                # doctest: +SKIP
    >>> theta = sweep.select(**{"dataset.batch_size": 64}).runs[0].theta()   # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from hw1.files import read_json
from hw1.training.identity import ConfigError, added, select

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from hw1.data import DataModule

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


class Run:
    """One run's folder.

    Args:
        path: `multirun/<name>/runs/<slug>-<key>`.

    Raises:
        FileNotFoundError: no run stands there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not (self.path / "config.yaml").is_file():
            raise FileNotFoundError(f"{self.path} is not the folder of a run: it has no config.yaml")

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @cached_property
    def config(self) -> DictConfig:
        """The resolved settings."""
        config = OmegaConf.load(self.path / "config.yaml")
        assert isinstance(config, DictConfig)
        return config

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The resolved settings as plain containers."""
        settings = OmegaConf.to_container(self.config, resolve=True)
        assert isinstance(settings, dict)
        return {str(name): value for name, value in settings.items()}

    @property
    def key(self) -> str:
        """The hash of the settings that the folder's name ends with."""
        return self.path.name.rpartition("-")[2]

    @property
    def slug(self) -> str:
        """The readable part of the folder's name."""
        return self.path.name.rpartition("-")[0]

    @property
    def result(self) -> dict[str, Any]:
        """The content of result.json; {} while the run has not ended."""
        file = self.path / "result.json"
        result = read_json(file) if file.is_file() else {}
        assert isinstance(result, dict)
        return result

    @property
    def status(self) -> str:
        """`complete`, `failed`, or `unfinished`."""
        return str(self.result.get("status", "unfinished"))

    def value(self, key: str) -> Any:
        """A setting by dotted key; None if there is none."""
        return select(self.settings, key)

    def metrics(self, member: int = 0) -> dict[str, float]:
        """The final metrics of one member, by name; {} while the run has not ended."""
        values = self.result.get("metrics", {}).items()
        several = self.members > 1
        return {name: value[member] if several and isinstance(value, list) else value for name, value in values}

    def history(self) -> pd.DataFrame:
        """metrics.csv: columns epoch (counted from 0), step, and the metrics; NaN where one has no value at a step."""
        import pandas as pd

        return pd.read_csv(self.path / "metrics.csv")

    @property
    def weights_file(self) -> Path:
        """The file that `theta` and `net` read: the snapshot at the end, else the last checkpoint.

        Raises:
            FileNotFoundError: the run has neither.
        """
        files = self._snapshot_files()
        checkpoint = self.path / "checkpoints" / "last.ckpt"
        last = self.result.get("epochs", -1)
        if last in files:  # never an earlier one: it is not what the run came to
            return files[last]
        if not checkpoint.is_file():
            raise FileNotFoundError(
                f"{self.path} has no weights: no snapshot of its end and no checkpoints/last.ckpt; "
                "delete the folder and run its command again"
            )
        return checkpoint

    def weights_digest(self) -> str:
        """SHA-256 of `weights_file`, so that a measurement knows the weights that it was made on."""
        with self.weights_file.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def members(self) -> int:
        """R, the number of networks that the run trains side by side."""
        return int(added(self.settings, "replicas"))

    def theta(self) -> Tensor:
        """The final weights as one vector [P]; [R, P] of a run with several members."""
        import torch

        from hw1.vectors import ParamSpace

        thetas = []
        for net in self.nets():
            parameters = {name: value.detach() for name, value in net.named_parameters()}
            thetas.append(ParamSpace.of(net).flatten(parameters))
        return thetas[0] if self.members == 1 else torch.stack(thetas)

    def snapshots(self, layer: str | None = None) -> Snapshots:
        """All weight snapshots of the run.

        Args:
            layer: a tensor's name, as in `net().named_parameters()`; only it is read. None for all, flattened.

        Raises:
            FileNotFoundError: the run took no snapshots.
            KeyError: no tensor has this name; the message lists those there are.
        """
        import torch
        from safetensors import safe_open

        from hw1.vectors import ParamSpace

        files = self._snapshot_files()
        if not files:
            raise FileNotFoundError(f"{self.path} has no snapshots: add callbacks=weight_snapshots")
        epochs = sorted(files)
        if layer is None:
            nets = self.nets()
            space = ParamSpace.of(nets[0])
            rows = []
            for epoch in epochs:
                _load(nets, files[epoch])
                named = [{name: value.detach().clone() for name, value in net.named_parameters()} for net in nets]
                thetas = torch.stack([space.flatten(parameters) for parameters in named])
                rows.append(thetas[0] if self.members == 1 else thetas)
            return Snapshots(epochs, torch.stack(rows))
        values = []
        for epoch in epochs:
            with _readable(files[epoch]), safe_open(files[epoch], framework="pt") as file:
                if layer not in file.keys():  # noqa: SIM118 - safe_open is no mapping
                    raise KeyError(f"{self.path} has no tensor {layer!r}; it has {', '.join(file.keys())}")
                values.append(file.get_tensor(layer))
        return Snapshots(epochs, torch.stack(values))

    def datamodule(self) -> DataModule:
        """The run's data, loaded, from the root that its settings name; $HW1_DATA where that is gone.

        Raises:
            ConfigError: the data are not those that the run was trained on.
        """
        from hw1.training import build

        dataset = dict(self.settings["dataset"])
        if dataset.get("root") and not Path(dataset["root"]).exists():
            dataset["root"] = None
        data = build.datamodule({**self.settings, "dataset": dataset})
        data.prepare_data()
        trained_on = self.result.get("dataset", {}).get("sha256")
        if trained_on not in (None, data.identity()):
            raise ConfigError(
                f"{self.path}: the data have changed since this run was trained; restore them, or delete it"
            )
        data.setup()
        return data

    def net(self, member: int = 0) -> nn.Module:
        """The network (one of the members) with its final weights, in evaluation mode, on the CPU.

        Raises:
            IndexError: the run has no such member.
        """
        if not 0 <= member < self.members:
            raise IndexError(f"member: got {member}, expected 0 to {self.members - 1} of {self.path.name}")
        return self.nets()[member]

    def nets(self) -> list[nn.Module]:
        """The networks of all members, as `net` gives them."""
        import torch

        from hw1.training import build

        data = build.datamodule(self.settings)  # shapes are known without the files of the data
        with torch.random.fork_rng():
            nets = [build.single_network(self.settings, data) for _ in range(self.members)]
        if self.value("trainer.precision") in ("64", "64-true"):
            nets = [net.double() for net in nets]
        _load(nets, self.weights_file)
        return [net.eval() for net in nets]

    def _snapshot_files(self) -> dict[int, Path]:
        found = {}
        for file in (self.path / "snapshots").glob("*.safetensors"):
            if match := _SNAPSHOT.fullmatch(file.name):
                found[int(match[1])] = file
        return found


def _load(nets: list[nn.Module], file: Path) -> None:
    """Read the members' weights into `nets` in place, from a snapshot or a checkpoint.

    Raises:
        ConfigError: the file is damaged or belongs to another network.
    """
    import torch
    from safetensors.torch import load_file, load_model

    from hw1.models import Replicated, replicate

    with _readable(file):
        together = replicate(nets) if len(nets) > 1 else nets[0]
        if file.suffix != ".safetensors":
            state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
            together.load_state_dict({name.removeprefix("net."): value for name, value in state.items()})
        elif isinstance(together, Replicated):
            together.load_stacked(load_file(file))
        else:
            load_model(together, str(file))
        if isinstance(together, Replicated):
            tensors = together.stacked()
            for member, net in enumerate(nets):
                net.load_state_dict({name: value[member] for name, value in tensors.items()})


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """What a damaged file makes of reading it becomes a ConfigError that names the file and the remedy."""
    try:
        yield
    except KeyError:  # a name that the caller asked for
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{file} cannot be read as this run's weights ({reason}); delete the run's folder and train it again"
        ) from error


@dataclass(frozen=True)
class Sweep:
    """The runs that one command asked for.

    Attributes:
        path: `multirun/<name>/sweeps/<time>`.
        record: the content of its sweep.json.
        runs: its runs, finished or not, in the order of the command.
    """

    path: Path
    record: dict[str, Any]
    runs: list[Run] = field(default_factory=list)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Sweep:
        """Read a sweep by its folder or sweep.json; by the folder of an experiment, its latest one.

        Raises:
            FileNotFoundError: there is no sweep.json.
        """
        folder = Path(path)
        if folder.name == "sweep.json":
            folder = folder.parent
        if not (folder / "sweep.json").is_file():
            sweeps = sorted(folder.glob("sweeps/*/sweep.json"))
            if not sweeps:
                raise FileNotFoundError(f"no sweep.json in {folder}, nor in {folder}/sweeps/*")
            folder = sweeps[-1].parent
        record = read_json(folder / "sweep.json")
        if not isinstance(record, dict) or not {"name", "runs", "swept", "study", "command"} <= set(record):
            raise ValueError(f"{folder / 'sweep.json'} is not the record of a sweep; delete its folder")
        runs = folder.parent.parent / "runs"
        folders = [runs / entry["folder"] for entry in record["runs"]]
        return cls(folder, record, [Run(run) for run in folders if (run / "config.yaml").is_file()])

    @property
    def swept(self) -> list[str]:
        """The dotted keys that were swept."""
        return list(self.record["swept"])

    def cell(self, run: Run, key: str) -> int | float | str:
        """A run's setting as it stands in a table: a number or text. A group is its option, null is `null`."""
        value = run.value(key)
        if isinstance(value, dict):
            words = [
                word for entry in self.record["runs"] if entry["folder"] == run.path.name for word in entry["overrides"]
            ]
            named = [word.partition("=")[2] for word in words if word.startswith(f"{key}=")]
            return named[-1] if named else str(value)
        if value is None:
            return "null"
        return value if isinstance(value, int | float | str) else str(value)

    def select(self, **values: Any) -> Sweep:
        """The runs with these settings: `sweep.select(**{"optimizer.lr": 1e-3}, seed=1)`."""
        runs = [
            run
            for run in self.runs
            if all(value in (run.value(key), self.cell(run, key)) for key, value in values.items())
        ]
        return Sweep(self.path, self.record, runs)

    def complete(self) -> Sweep:
        """The runs that have ended well."""
        return Sweep(self.path, self.record, [run for run in self.runs if run.status == "complete"])

    def table(self, *metrics: str) -> pd.DataFrame:
        """One row a run, or a member: the swept keys, seed, status, and the named metrics (all if none is named).

        Raises:
            ValueError: no run has a metric of that name.
        """
        import pandas as pd

        known = {name for run in self.runs for name in run.result.get("metrics", {})}
        if unknown := [name for name in metrics if known and name not in known]:
            raise ValueError(f"metrics: got {', '.join(unknown)}, expected some of {', '.join(sorted(known))}")
        rows = []
        for run in self.runs:
            result = run.result
            several = run.members > 1
            for member in range(run.members):
                values = run.metrics(member)
                rows.append(
                    {
                        "run": run.path.name,
                        **({"member": member} if several else {}),
                        **{key: self.cell(run, key) for key in self.swept},
                        "seed": run.value("seed") + member,
                        "status": run.status,
                        **{name: values.get(name) for name in metrics or values},
                        "parameters": result.get("parameters"),
                        "seconds": result.get("seconds"),
                        "source": result.get("dataset", {}).get("source"),
                    }
                )
        return pd.DataFrame(rows)


def find_run(runs: Path, key: str) -> Path | None:
    """The folder of the run with this key among `runs`, whatever its slug; None if there is none."""
    return next((path for path in sorted(runs.glob(f"*-{key}")) if path.is_dir()), None)


def is_complete(folder: Path) -> bool:
    """Whether a run's folder holds a complete result. An unreadable one is not: the run is finished again."""
    try:
        return (folder / "config.yaml").is_file() and bool(read_json(folder / "result.json")["status"] == "complete")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def slug_of(overrides: Sequence[str]) -> str:
    """A readable folder name from the words of a command: `batch_size=64_lr=0.001`; at most 80 characters.

    Example:
        >>> slug_of(["dataset.batch_size=64", "model=mlp", "dataset.domain=[0,1]"])
        'batch_size=64_mlp_domain=0-1'
    """
    parts = []
    for word in overrides:
        key, _, value = word.lstrip("+~").partition("=")
        value = re.sub(r"[\[\](){}'\"]", " ", value).strip()
        value = re.sub(r"^-(?!\d)|-$", "", re.sub(r"[^\w.+-]+", "-", value))  # a minus stays
        # A group's option says enough by itself; a setting needs its name.
        parts.append(value if key in ("model", "dataset", "optimizer") else f"{key.rpartition('.')[2]}={value}")
    slug = re.sub(r"[^\w.=+-]+", "-", "_".join(part for part in parts if part))
    return slug[:80].strip("-_.") or "defaults"
