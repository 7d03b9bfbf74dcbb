"""One run's folder: all that is read off it. In one file, as a run is one thing to its readers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hw1.data.downloads import nothing_downloaded
from hw1.files import file_digest
from hw1.inside import refuse_links
from hw1.records import DamagedError, Seal, is_own
from hw1.runs import tables
from hw1.runs.measured import Ask, Measured, read_measured
from hw1.runs.shown import as_html, as_text, rows_of_run
from hw1.runs.weights import Snapshots, load, readable, removed_end, snapshot_files
from hw1.settings import ConfigError, RunSettings
from hw1.settings.interpolation import as_literal, here, refuse_resolvers, resolved
from hw1.settings.stored_yaml import read_yaml
from hw1.stored_csv import read_csv
from hw1.training.contents import RESULT, SETTINGS, begun, difference, read_sealed_result, require
from hw1.trust import TrustError, judge_settings, reading, ready, why_not_hers
from hw1.trust.data import strangers, with_given

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from hw1.data import DataModule

_AGAIN = "delete the run's folder and run its command again"


class Run:
    """One run's folder.

    Args:
        path: `multirun/<name>/runs/<slug>-<key>`.
        settings: of the run, where they are known; else they are read from its config.yaml.
        trust: modules of yours that a run which is not yours may name, as ["my_models"].

    Raises:
        FileNotFoundError: no run stands there.
        DamagedError: a link stands in its folder, which nothing follows.
    """

    def __init__(
        self, path: str | os.PathLike[str], settings: RunSettings | None = None, trust: Sequence[str] = ()
    ) -> None:
        self.path = Path(path)
        self._trust = tuple(trust)
        self._settings = settings
        self._judged = False
        self._read: tuple[tuple[int, int, int], dict[str, Any], Seal] | None = None
        self._result_file = os.path.join(self.path, RESULT)  # asked for often
        refuse_links(self.path)
        if not (self.path / "config.yaml").is_file():
            raise FileNotFoundError(f"{self.path} is not the folder of a run: it has no config.yaml")

    def __repr__(self) -> str:
        return as_text(*self._shown())

    def _repr_html_(self) -> str:
        return as_html(*self._shown())

    def _shown(self) -> tuple[str, list[dict[str, Any]]]:
        """What it says of itself, and a row for each member."""
        rows = rows_of_run(self)
        return f"Run({str(self.path)!r}): {rows[0]['status']}", rows

    @cached_property
    def config(self) -> DictConfig:
        """The resolved settings, as Hydra's users know them.

        Raises:
            ConfigError: they ask for anything but themselves.
            DamagedError: the file is no YAML of settings.
        """
        file = self.path / "config.yaml"
        try:
            node = read_yaml(file)
        except DamagedError as error:
            raise DamagedError(f"{error}; correct it, or {_AGAIN}") from error
        if not isinstance(node, dict | None):
            raise DamagedError(f"{file}: got a {type(node).__name__}, expected settings by name; {_AGAIN}")
        settings = resolved({str(name): value for name, value in (node or {}).items()}, file)
        config = OmegaConf.create(as_literal(settings))
        assert isinstance(config, DictConfig)
        return config

    @cached_property
    def settings(self) -> RunSettings:
        """The resolved settings.

        Raises:
            DamagedError: they are none that a run can have; the message names the file and the key.
        """
        if self._settings is not None:
            return self._settings
        settings: Any = self._begun.get("settings")
        if settings is not None:
            refuse_resolvers(settings, self.path)
        file = self._record
        if settings is None:  # a run of an earlier version
            file = self.path / "config.yaml"
            settings = OmegaConf.to_container(self.config, resolve=True)
        try:
            return RunSettings.check({str(name): value for name, value in settings.items()})
        except (ConfigError, OmegaConfBaseException, RecursionError) as error:
            looped = isinstance(error, RecursionError)
            said = "got a setting that refers to itself" if looped else str(error).splitlines()[0]
            if key := getattr(error, "full_key", None):  # OmegaConf's
                said = f"{key}: {said[:1].lower()}{said[1:]}"
            raise DamagedError(f"{file}: {said}; correct it, or {_AGAIN}") from error

    @property
    def code(self) -> dict[str, str] | None:
        """Hashes of the user's modules that it was made with; None where that was not recorded."""
        code: dict[str, str] | None = self._begun.get("code")
        return code

    @property
    def _begun(self) -> dict[str, Any]:
        """What was recorded when it began, or with its result."""
        return self._ended if "settings" in self._ended else begun(self.path) or {}

    @property
    def _record(self) -> Path:
        """Where its settings stand."""
        return self.path / (RESULT if "settings" in self._ended else SETTINGS)

    @property
    def _ended(self) -> dict[str, Any]:
        """Its result; {} also where that is damaged: then the run is finished again, as it began."""
        try:
            return self.result
        except DamagedError:
            return {}

    @property
    def is_signed(self) -> bool:
        """Whether its settings carry your signature, whatever has become of your code since."""
        if "settings" in self._ended and self._read is not None:
            return self._read[2].is_own()
        return is_own(self._record)

    @cached_property
    def why_not_own(self) -> str:
        """Why it is a stranger's to you, and what makes it yours; "" where it is your own: signed, and your code."""
        return why_not_hers(self._record, self.settings.plain, self.code)

    def judge(self) -> RunSettings:
        """The settings, fit to be built: your own as they are, of a stranger's each name that they hold is judged.

        Raises:
            TrustError: a stranger's settings name something that is not built for a stranger; nothing was called.
        """
        ready()
        if not self._judged and (why := self.why_not_own):
            judge_settings(self.settings.plain, (*reading().trusted, *self._trust), why)
        self._judged = True
        return self.settings

    def dataset_node(self, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The node of its data, with what the user says of where they are; a stranger's paths lead nowhere."""
        said = given or reading().dataset
        if self.why_not_own:
            return strangers(self.judge().dataset, said, strict=bool(given))
        node = with_given(self.judge().dataset, said, strict=bool(given))
        return node | {"root": here(node["root"])} if node.get("root") else node

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
        """The content of result.json; {} while the run has not ended. Read again only where the file has changed.

        Raises:
            DamagedError: it is not what was written, or of another run.
        """
        try:
            status = os.stat(self._result_file)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        if self._read is None or self._read[0] != (status.st_mtime_ns, status.st_size, status.st_ino):
            self._read = (status.st_mtime_ns, status.st_size, status.st_ino), *read_sealed_result(self.path)
        return self._read[1]

    @property
    def status(self) -> str:
        """`complete`, `failed`, or `unfinished`."""
        return str(self.result.get("status", "unfinished"))

    def is_complete(self) -> bool:
        """As `hw1.runs.folders.is_complete`, of what has been read."""
        return self._ended.get("status") == "complete" and (self.path / "config.yaml").is_file()

    def value(self, key: str) -> Any:
        """A setting by dotted key; None if there is none."""
        return self.settings.value(key)

    @property
    def count(self) -> int:
        """R, the number of members that the run trains side by side."""
        return self.settings.members

    def metrics(self, member: int = 0) -> dict[str, float]:
        """The final metrics of one member, by name; {} while the run has not ended."""
        found, count = {}, self.count
        for name, value in self.result.get("metrics", {}).items():
            if isinstance(value, list) and (count == 1 or len(value) != count):
                raise DamagedError(
                    f"{self.path / RESULT}: metrics.{name}: got {len(value)} values, expected one for each of "
                    f"{count} members; {_AGAIN}"
                )
            found[name] = value[member] if isinstance(value, list) else value
        return found

    def measured(self, ask: Ask) -> Measured | None:
        """What a measure found on this run; None where it was not taken, failed, or its file is damaged."""
        found = read_measured(ask.file(self.path))
        if found is None or found.error or any(len(values) != self.count for values in found.values.values()):
            return None
        return found

    def measures(self) -> pd.DataFrame:
        """What all measures found on this run, one row a member; of two of one name, the later file's says its hash."""
        return tables.measured_on(self)

    def history(self) -> pd.DataFrame:
        """metrics.csv: columns epoch (counted from 0), step, and the metrics; NaN where one has no value at a step.

        Raises:
            DamagedError: the file is not what a finished run wrote.
        """
        self.require_history()
        return read_csv(self.path / "metrics.csv", ("epoch", "step"))

    def require_history(self) -> None:
        """Compare metrics.csv with what the run wrote when it ended.

        Raises:
            DamagedError: it is not what a finished run wrote.
        """
        self._require(self.path / "metrics.csv")

    def history_text(self) -> bytes:
        """The bytes of metrics.csv, read once and compared as `require_history` does: for many short ones.

        Raises:
            DamagedError: they are not what a finished run wrote.
        """
        file = self.path / "metrics.csv"
        if (listed := self._listed(file)) is None:
            return file.read_bytes()
        require(self.path, {file.name: (listed[0], None)})
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != listed[1]:
            raise DamagedError(f"{file} is damaged: its content is not what was written; {_AGAIN}")
        return content

    def _listed(self, file: Path) -> tuple[int, str] | None:
        """Size and SHA-256 that result.json lists for a file of the run; None where it does not."""
        listed = self.result.get("files", {}).get(file.relative_to(self.path).as_posix())
        return None if listed is None else (listed[0], listed[1])

    def _require(self, file: Path) -> None:
        if listed := self._listed(file):
            require(self.path, {file.relative_to(self.path).as_posix(): listed})

    @property
    def removed(self) -> dict[str, list[Any]]:
        """[bytes, SHA-256] of weights that were removed since it ended, by path in the folder."""
        return dict(self.result.get("removed", {}))

    def digest_of(self, file: Path) -> str:
        """SHA-256 of a file of the run, or of what was removed: as in result.json, where its size is right.

        Raises:
            DamagedError: a file of a finished run has another size.
        """
        if not file.exists() and (gone := self.removed.get(file.relative_to(self.path).as_posix())):
            return str(gone[1])
        listed = self._listed(file)
        if listed is None:
            return file_digest(file)
        if problem := difference(file, listed[0]):
            raise DamagedError(f"{problem}; {_AGAIN}")
        return listed[1]

    @property
    def weights_file(self) -> Path:
        """The file that `theta` and `net` read: the snapshot at the end, else the last checkpoint.

        Raises:
            FileNotFoundError: the run has neither.
        """
        files = snapshot_files(self.path)
        checkpoint = self.path / "checkpoints" / "last.ckpt"
        last = self.result.get("epochs", -1)
        if last in files:  # never an earlier one: it is not what the run came to
            return files[last]
        if not checkpoint.is_file():
            why = "removed since it ended" if self.removed else "no snapshot of its end and no checkpoints/last.ckpt"
            raise FileNotFoundError(f"{self.path} has no weights: {why}; delete the folder and run its command again")
        return checkpoint

    def weights_digest(self) -> str:
        """SHA-256 of `weights_file`, so that a measurement knows the weights that it was made on."""
        return self.digest_of(removed_end(self.path, self.removed, self.result.get("epochs", -1)) or self.weights_file)

    def theta(self) -> Tensor:
        """The final weights as one vector [P]; [R, P] of a run with several members."""
        import torch

        from hw1.vectors import ParamSpace

        thetas = []
        for net in self.nets():
            parameters = {name: value.detach() for name, value in net.named_parameters()}
            thetas.append(ParamSpace.of(net).flatten(parameters))
        return thetas[0] if self.count == 1 else torch.stack(thetas)

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

        files = snapshot_files(self.path)
        if not files:
            raise FileNotFoundError(f"{self.path} has no snapshots: add callbacks=weight_snapshots")
        epochs = sorted(files)
        if layer is None:
            nets = self.nets()
            space = ParamSpace.of(nets[0])
            rows = []
            for epoch in epochs:
                self._require(files[epoch])
                load(nets, files[epoch])
                named = [{name: value.detach().clone() for name, value in net.named_parameters()} for net in nets]
                thetas = torch.stack([space.flatten(parameters) for parameters in named])
                rows.append(thetas[0] if self.count == 1 else thetas)
            return Snapshots(epochs, torch.stack(rows))
        values = []
        for epoch in epochs:
            self._require(files[epoch])
            with readable(files[epoch]), safe_open(files[epoch], framework="pt") as file:
                if layer not in file.keys():  # noqa: SIM118 - safe_open is no mapping
                    raise KeyError(f"{self.path} has no tensor {layer!r}; it has {', '.join(file.keys())}")
                values.append(file.get_tensor(layer))
        return Snapshots(epochs, torch.stack(values))

    def datamodule(self, **given: str | os.PathLike[str]) -> DataModule:
        """The run's data, loaded, from the root that its settings name; $HW1_DATA where that is gone.

        Args:
            **given: where they are, instead: `root`, or what the data call their `file` or `folder`. Of a run that is
                not yours no path is opened that stands in its settings, and nothing is downloaded.

        Raises:
            ConfigError: the data are not those that the run was trained on.
            TrustError: the run is a stranger's, and names what is not built for one, or data that you must name.
        """
        from hw1.training import build

        dataset = self.dataset_node(given)
        if not given and dataset.get("root") and not Path(dataset["root"]).exists():
            dataset["root"] = None
        with nothing_downloaded() if self.why_not_own else nullcontext(), self._lacking():
            data = build.datamodule(dataset)
            data.prepare_data()
            trained_on = self.result.get("dataset", {}).get("sha256")
            if trained_on not in (None, data.identity()):
                raise ConfigError(
                    f"{self.path}: the data have changed since this run was trained; restore them, or delete it"
                )
            data.setup()
            return build.with_loss(data, self.settings)

    @contextmanager
    def _lacking(self) -> Iterator[None]:
        """Say what to do where data of somebody else's run are not here."""
        try:
            yield
        except FileNotFoundError as error:
            if not self.why_not_own:
                raise
            reason = " ".join(str(error).split())
            remedy = "add dataset.root=FOLDER (in Python, run.datamodule(root=FOLDER))"
            raise TrustError(f"dataset.{reason}; {remedy}") from error

    def constant(self) -> dict[str, float]:
        """Train loss, and accuracy where there is one, of the best constant prediction; see `constant_metrics`."""
        known = self.result.get("constant")
        if known is None:  # a run of an earlier version
            known = self.datamodule().constant_metrics()
        return {str(name): float(value) for name, value in known.items()}

    def net(self, member: int = 0) -> nn.Module:
        """The network (one of the members) with its final weights, in evaluation mode, on the CPU.

        Raises:
            IndexError: the run has no such member.
        """
        if not 0 <= member < self.count:
            raise IndexError(f"member: got {member}, expected 0 to {self.count - 1} of {self.path.name}")
        return self.nets()[member]

    def nets(self, epoch: int | None = None) -> list[nn.Module]:
        """The networks of all members, as `net` gives them.

        Args:
            epoch: completed epochs of the snapshot that is read; None for the final weights.

        Raises:
            FileNotFoundError: the run has no such weights.
            TrustError: the run is a stranger's, and names what is not built for one.
        """
        import torch

        from hw1.training import build

        file = self.weights_file if epoch is None else snapshot_files(self.path).get(epoch)
        if file is None:
            raise FileNotFoundError(f"{self.path} has no snapshot of epoch {epoch}")
        self._require(file)
        settings = self.judge()
        data = build.datamodule(self.dataset_node())  # shapes are known without the files of the data
        with torch.random.fork_rng():
            nets = [build.single_network(settings, data)]
            self._require_room(nets[0], file)
            nets += [build.single_network(settings, data) for _ in range(self.count - 1)]
        if str(self.value("trainer.precision")) in ("64", "64-true"):  # Lightning takes the number too
            nets = [net.double() for net in nets]
        load(nets, file)
        return [net.eval() for net in nets]

    def _require_room(self, net: nn.Module, file: Path) -> None:
        """Refuse settings that claim more weights than a file holds, before the other members are made.

        Raises:
            DamagedError: they do.
        """
        numbers, most = self.count * sum(value.numel() for value in net.parameters()), file.stat().st_size
        if self.count > 1 and numbers > most:  # each takes a byte at least
            raise DamagedError(
                f"{self.path}: got settings of {numbers:,} weights, but {file.name} has {most:,} bytes; {_AGAIN}"
            )
