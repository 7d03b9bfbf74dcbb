"""What a stranger's settings may name, by the place that it stands in. No torch.

A class, of the kind that its place needs, from packages of hw1's, torch's and what conf/ itself names beside them; and
the constructors that are listed here. No other function: `torch.load` and `torch.hub.load` are functions too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# What starts processes, or does what it is handed.
NEVER = (
    "torch.nn.parallel",
    "torchvision.transforms.v2.Lambda",
    "torchvision.transforms.v2._misc.Lambda",
    "torch.optim.lr_scheduler.LambdaLR",
    "torch.optim.lr_scheduler.MultiplicativeLR",
)


@dataclass(frozen=True)
class Place:
    """What may stand somewhere in the settings.

    Attributes:
        kind: dotted name of the class that it must be of; "" where `methods` tell.
        packages: that its name, and the module that it was written in, may lie in.
        doors: modules by which the same are known, as `lightning` for `lightning.Trainer`.
        methods: what it must have.
        constructors: functions of hw1's that are called, by the names that they are known by; their packages may be
            missing, as that of wandb_logger.
        builders: whether those that torchvision registers for its models are called, without weights.
        inside: places whose kinds may stand inside its settings; None for its own.
    """

    kind: str
    packages: Sequence[str]
    doors: Sequence[str] = ()
    methods: Sequence[str] = ()
    constructors: Sequence[str] = ()
    builders: bool = False
    inside: Sequence[str] | None = None

    @property
    def expected(self) -> str:
        """In words."""
        kind = self.kind.rpartition(".")[2] or " and ".join(f".{name}()" for name in self.methods)
        return f"a class ({kind}) of {' or '.join(self.packages)}" if self.packages else "none"


PLACES = {
    "model": Place(
        "torch.nn.Module",
        ("hw1.models", "torch.nn"),
        constructors=(
            *("hw1.models.mlp_of_size", "hw1.models.sized_mlp.mlp_of_size"),
            *("hw1.models.mlp_of_budget", "hw1.models.sized_mlp.mlp_of_budget"),  # of earlier versions
            "hw1.recording.network",  # which only refuses
        ),
        builders=True,
    ),
    # Nothing of hw1's inside: `hw1.trust.data` sees to the paths of the node itself.
    "dataset": Place("", ("hw1.data",), methods=("prepare", "identity"), inside=()),
    "optimizer": Place("torch.optim.Optimizer", ("torch.optim", "hw1.optim")),
    "scheduler": Place(
        "torch.optim.lr_scheduler.LRScheduler",
        ("torch.optim",),
        constructors=("hw1.optim.cosine_warmup", "hw1.optim.linear_warmup"),
    ),
    "loss": Place(
        "torch.nn.Module",
        ("hw1.losses", "torch.nn"),
        constructors=tuple(f"hw1.losses.{name}" for name in ("cross_entropy", "focal", "huber", "mae", "mse")),
    ),
    # Not those of images and texts, which download the networks that they judge by.
    "metrics": Place(
        "torchmetrics.Metric",
        ("torchmetrics.classification", "torchmetrics.regression", "torchmetrics.aggregation"),
        doors=("torchmetrics",),
    ),
    "transform": Place("", ("torchvision.transforms.v2", "hw1.data.transforms"), methods=("__call__",)),
    "callbacks": Place(
        "lightning.pytorch.callbacks.Callback",
        ("hw1.callbacks", "lightning.pytorch.callbacks"),
        # Of an earlier version, see `hw1.report.rekey`: nothing has these names today.
        constructors=tuple(f"hw1.callbacks.{name}" for name in ("Sharpness", "Sensitivity", "MinimalRatio")),
        inside=("callbacks", "measures"),
    ),
    "logger": Place(
        "lightning.pytorch.loggers.Logger",
        ("lightning.pytorch.loggers",),
        constructors=tuple(f"hw1.training.{name}_logger" for name in ("tensorboard", "mlflow", "wandb")),
    ),
    "trainer": Place("lightning.pytorch.Trainer", ("lightning.pytorch",), doors=("lightning",), inside=("profiler",)),
    "profiler": Place("lightning.pytorch.profilers.Profiler", ("lightning.pytorch.profilers",)),
    "measures": Place("", ("hw1.measures",), methods=("take", "epochs")),
    "study": Place("", ("hw1.studies",), methods=("measure", "draw")),
    "task": Place("lightning.pytorch.LightningModule", ()),
}
