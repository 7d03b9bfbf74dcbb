"""The one LightningModule."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from hw1.data import DataModule
from hw1.kinds import Kind, Loss, has_accuracy, hits, loss_of, weight_of
from hw1.metrics import PERPLEXITY
from hw1.models import Members
from hw1.models.cnn import differentiated_once
from hw1.risk.second_derivatives import TwiceDifferentiable
from hw1.settings.run_settings import LOSS, OBJECTIVES, SQUARED_GRADIENT_NORM
from hw1.training.objectives import member_losses, squared_gradient_norms
from hw1.training.step_records import log_members, median

Batch = tuple[Tensor, Tensor]


class WholeSetMeans(Metric):
    """Example-weighted means of several values over all batches, float64: K values of R members, [R, K].

    NaN stands for itself; torchmetrics' MeanMetric can leave it out or ignore weights, and is one object a value.

    Args:
        members: R.
        values: K.
        dtype: of the sums; float64 keeps the digits of float32 terms.
    """

    full_state_update = False
    sums: Tensor
    examples: Tensor

    def __init__(self, members: int, values: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(members, values, dtype=dtype), dist_reduce_fx="sum")
        self.add_state("examples", torch.zeros((), dtype=dtype), dist_reduce_fx="sum")

    def update(self, means: Tensor, examples: float) -> None:
        """Add the means [R, K] over a batch of `examples`, or of so many tokens."""
        self.sums += means.to(self.sums.dtype) * examples
        self.examples += examples

    def compute(self) -> Tensor:
        """The means over everything so far, [R, K]."""
        return self.sums / self.examples


class Task(lightning.LightningModule):
    """Minimises a loss (or its squared gradient norm), and reports exact means over whole sets in evaluation mode.

    Each evaluation logs `<set>/loss` (the unit of the loss; nats for cross-entropy) and, for classes and tokens,
    `<set>/accuracy` for every set in the datamodule's `eval_names`: example-weighted over the whole set, also with a
    ragged last batch. Of tokens, those that count weigh alike, and `<set>/perplexity` is exp(loss). With a `Members` network every value is one a member; Lightning and its loggers see the median
    over members.

    Args:
        net: the network, [B, ...] -> [B, ...], or a `Members`, [R, B, ...] -> [R, B, ...].
        loss: (outputs, targets) -> mean over the batch [], with a `reduction` as torch.nn.functional's losses have.
        optimizer: parameters -> optimizer.
        scheduler: optimizer -> learning-rate scheduler, stepped every epoch; None for none.
        objective: "loss", or "squared_gradient_norm" of the mini-batch loss (double backward).
        objective_after: epochs on the loss before the squared gradient norm is minimised; the optimizer then starts
            afresh.

    Attributes:
        member_metrics: {name: [R]} of the last evaluation.
        evaluated_at: the number of steps after which that was; None before the first.
        measured: {name: [R]} that callbacks add to the run's result.

    Raises:
        ValueError: an unknown objective.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Loss,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
        objective: str = LOSS,
        objective_after: int = 0,
    ) -> None:
        super().__init__()
        if objective not in OBJECTIVES:
            raise ValueError(f"objective: got {objective!r}, expected {' or '.join(OBJECTIVES)}")
        self.net = net
        self.loss = loss
        self.objective, self.objective_after = objective, objective_after
        self.members = net.count if isinstance(net, Members) else 1
        self.member_metrics: dict[str, list[float]] = {}
        self.evaluated_at: int | None = None
        self.measured: dict[str, list[float]] = {}
        self._make_optimizer = optimizer
        self._make_scheduler = scheduler
        # Plain containers, so that the state_dict holds the network and nothing else.
        self._metrics: list[WholeSetMeans] = []
        self._names: tuple[str, ...] = ()
        self._values: tuple[str, ...] = ("loss",)
        self._kind: Kind = "values"
        self._first: dict[str, Tensor] | None = None  # what the first evaluation of the current batch gave

    @classmethod
    def of(cls, module: lightning.LightningModule) -> Task:
        """`module`, which a callback gets, as what it is.

        Raises:
            TypeError: it is no Task.
        """
        if not isinstance(module, cls):
            raise TypeError(f"module: got a {type(module).__name__}, expected hw1's Task")
        return module

    def add_measured(self, members: Iterable[Mapping[str, float]]) -> None:
        """Add what a callback measured, {name: value} of each member, to the results of the run."""
        rows = list(members)
        self.measured |= {name: [row[name] for row in rows] for name in rows[0]}

    def forward(self, x: Tensor) -> Tensor:
        """The network's outputs."""
        outputs: Tensor = self.net(x)
        return outputs

    def configure_optimizers(self) -> Any:
        """The optimizer, with its scheduler if there is one."""
        optimizer = self._make_optimizer(self.net.parameters())
        if self._make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self._make_scheduler(optimizer)}

    @property
    def minimises(self) -> str:
        """The objective of the current epoch."""
        return self.objective if self.current_epoch >= self.objective_after else LOSS

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Forget the batch before; when the objective changes, also what the optimizer has gathered on the loss.

        The latter not in on_train_epoch_start, which Lightning leaves out in the epoch that it resumes at.
        """
        self._first = None
        if batch_idx == 0 and self.current_epoch == self.objective_after > 0:
            self.trainer.optimizers[0].state = defaultdict(dict)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """What is minimised [], and for logging the members' mini-batch losses [R].

        Where the squared gradient norm is minimised, also `squares` [R, tensors], those of the loss's gradient. An
        optimizer may evaluate a batch several times (SAM, LBFGS); what is for logging is that of the first point.
        """
        x, y = batch
        twice = self.minimises == SQUARED_GRADIENT_NORM
        with TwiceDifferentiable() if twice else differentiated_once():
            losses = member_losses(self.net, self.loss, self.net(x), y)
        logged = {"losses": losses.detach()}
        if twice:
            squares = squared_gradient_norms(self.net, losses)
            logged["squares"] = squares.detach()
        self._first = self._first or logged
        return {"loss": (squares if twice else losses).sum(), **self._first}

    def _start_evaluation(self) -> None:
        data: DataModule = self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without saying so
        self._kind, self._names = data.kind, data.eval_names
        self._values = ("loss", "accuracy") if has_accuracy(self._kind) else ("loss",)
        precise = torch.float32 if self.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        self._metrics = [WholeSetMeans(self.members, len(self._values), precise).to(self.device) for _ in self._names]

    def _evaluate(self, batch: Batch, dataloader_idx: int) -> None:
        x, y = batch
        outputs = self.net(x)
        values = [member_losses(self.net, self.loss, outputs, y)]
        several = isinstance(self.net, Members)
        weight = weight_of(self._kind, y[0] if several else y)  # y is [R or 1, B, ...], or [B, ...]
        if has_accuracy(self._kind):
            if several:
                outputs, y = outputs.flatten(0, 1), y.expand(self.members, *y.shape[1:]).flatten(0, 1)
            right = hits(self._kind, outputs, y)  # [B, ...], or [R * B, ...]
            assert right is not None
            right = right.reshape(self.members, -1).to(values[0].dtype)
            values.append(right.sum(1) / weight if self._kind == "tokens" else right.mean(1))  # what is ignored is no hit
        if weight:
            self._metrics[dataloader_idx].update(torch.stack(values, dim=1), weight)

    def _finish_evaluation(self, log: bool) -> None:
        self.member_metrics = {
            f"{name}/{value}": members
            for name, metric in zip(self._names, self._metrics, strict=True)
            for value, members in zip(self._values, metric.compute().reshape(self.members, -1).T.tolist(), strict=True)
        }
        if self._kind == "tokens" and self.loss is loss_of("tokens"):
            for name in self._names:
                losses = torch.tensor(self.member_metrics[f"{name}/loss"], dtype=torch.float64)
                self.member_metrics[f"{name}/{PERPLEXITY}"] = losses.exp().tolist()
        self.evaluated_at = None if self.trainer.sanity_checking else self.global_step
        # Lightning knows single float32 values only: what it hands to callbacks is the middle member.
        middle = {name: median(members) for name, members in self.member_metrics.items()}
        self.log_dict(middle, add_dataloader_idx=False, logger=False)
        if log and not self.trainer.sanity_checking:
            log_members(self.trainer, [(self.global_step - 1, {"epoch": self.current_epoch, **self.member_metrics})])

    def on_validation_epoch_start(self) -> None:
        """Fresh metrics."""
        self._start_evaluation()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the metrics of its set."""
        self._evaluate(batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of every set."""
        self._finish_evaluation(log=True)

    def on_test_epoch_start(self) -> None:
        """Fresh metrics."""
        self._start_evaluation()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the metrics of its set."""
        self._evaluate(batch, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        """Return the metrics through trainer.test; the loggers have them from the last epoch already."""
        self._finish_evaluation(log=False)
