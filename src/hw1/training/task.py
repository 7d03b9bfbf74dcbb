"""The one LightningModule."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from hw1.data import DataModule
from hw1.kinds import IGNORED, Kind, Loss, has_accuracy, hits, loss_of
from hw1.metrics import PERPLEXITY
from hw1.models import Members
from hw1.models.cnn import differentiated_once
from hw1.risk.counts import in_dtype
from hw1.risk.second_derivatives import TwiceDifferentiable
from hw1.settings.run_settings import LOSS, OBJECTIVES, SQUARED_GRADIENT_NORM
from hw1.training.extra_metrics import MakeMetrics, fed
from hw1.training.loss import counted_of, loss_weight
from hw1.training.objectives import member_losses, squared_gradient_norms
from hw1.training.schedule import Length, Schedule, Scheduler
from hw1.training.step_records import log_members, median
from hw1.training.whole_set_means import WholeSetMeans

Batch = tuple[Tensor, Tensor]


class Task(lightning.LightningModule):
    """Minimises a loss (or its squared gradient norm), and reports exact means over whole sets in evaluation mode.

    Each evaluation logs `<set>/loss` (the unit of the loss; nats for cross-entropy) and, for classes and tokens,
    `<set>/accuracy` for every set in the datamodule's `eval_names`: example-weighted over the whole set, also with a
    ragged last batch. Of tokens, those that count weigh alike, and `<set>/perplexity` is exp(loss). Further metrics
    stand beside them by their names. With a `Members` network every value is one a member; Lightning and its loggers
    see the median over members.

    Args:
        net: the network, [B, ...] -> [B, ...], or a `Members`, [R, B, ...] -> [R, B, ...].
        loss: (outputs, targets) -> mean over the batch [].
        optimizer: parameters -> optimizer.
        scheduler: (optimizer, length of the training) -> its schedule; None for none.
        objective: "loss", or "squared_gradient_norm" of the mini-batch loss (double backward).
        objective_after: epochs on the loss before the squared gradient norm is minimised; the optimizer then starts
            afresh.
        metrics: () -> metrics by name, of one set and one network.

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
        scheduler: Scheduler | None = None,
        objective: str = LOSS,
        objective_after: int = 0,
        metrics: MakeMetrics = dict,
    ) -> None:
        super().__init__()
        if objective not in OBJECTIVES:
            raise ValueError(f"objective: got {objective!r}, expected {' or '.join(OBJECTIVES)}")
        self.net = net
        self._loss = (loss,)  # in a tuple: what it holds is no part of the state
        self._placed: tuple[torch.dtype, torch.device, Loss] | None = None
        self.objective, self.objective_after = objective, objective_after
        self.members = net.count if isinstance(net, Members) else 1
        self.member_metrics: dict[str, list[float]] = {}
        self.evaluated_at: int | None = None
        self.measured: dict[str, list[float]] = {}
        self._make_optimizer = optimizer
        self._make_scheduler = scheduler
        # Plain containers, so that the state_dict holds the network and nothing else.
        self._make_metrics = metrics
        self._metrics: list[WholeSetMeans] = []
        self._others: list[list[dict[str, Metric]]] = []  # of each set and member
        self._schedule: Schedule | None = None
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
        seen = getattr(module, "hw1_task", module)  # of the user's own module, see `own_task`
        if not isinstance(seen, cls):
            raise TypeError(f"module: got a {type(module).__name__}, expected hw1's Task")
        return seen

    @property
    def module(self) -> lightning.LightningModule:
        """What the trainer fits."""
        return self

    def add_measured(self, members: Iterable[Mapping[str, float]]) -> None:
        """Add what a callback measured, {name: value} of each member, to the results of the run."""
        rows = list(members)
        self.measured |= {name: [row[name] for row in rows] for name in rows[0]}

    def forward(self, x: Tensor) -> Tensor:
        """The network's outputs."""
        outputs: Tensor = self.net(x)
        return outputs

    @property
    def loss(self) -> Loss:
        """The loss, with what it holds (weights of classes, say) where the network is."""
        like = next(self.net.parameters(), None)
        if like is None:
            return self._loss[0]
        if self._placed is None or self._placed[:2] != (like.dtype, like.device):
            self._placed = like.dtype, like.device, in_dtype(self._loss[0], like.dtype, like.device)
        return self._placed[2]

    def configure_optimizers(self) -> Any:
        """The optimizer, with its schedule if there is one."""
        optimizer = self._make_optimizer(self.net.parameters())
        if self._make_scheduler is None:
            return optimizer
        self._schedule = schedule = self._make_scheduler(optimizer, Length(self._steps, self._epochs))
        config = {"scheduler": schedule.scheduler, "interval": schedule.interval, "frequency": schedule.frequency}
        if schedule.monitor is not None:
            # Lightning would step a plateau behind the epoch's checkpoint, and leave it out where training is resumed:
            # the task does it, and Lightning keeps its state.
            config |= {"reduce_on_plateau": False, "frequency": 1}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Lightning's call at the end of a step or an epoch."""
        # Averaging (SWA) puts a schedule of its own in the place of the run's.
        if self._schedule is None or self._schedule.monitor is None or scheduler is not self._schedule.scheduler:
            with warnings.catch_warnings():
                # torch's SequentialLR starts its parts in a way that torch deprecates.
                warnings.filterwarnings("ignore", message="The epoch parameter in")
                scheduler.step()

    def on_train_epoch_end(self) -> None:
        """Step a plateau by what it monitors, in epochs that were evaluated; before the epoch's checkpoint."""
        schedule = self._schedule
        if schedule is None or schedule.monitor is None or self.evaluated_at != self.global_step:
            return
        if all(config.scheduler is not schedule.scheduler for config in self.trainer.lr_scheduler_configs):
            return  # another has taken its place
        if (self.current_epoch + 1) % schedule.frequency == 0:
            schedule.scheduler.step(self.member_metrics[schedule.monitor][0])  # type: ignore[arg-type]  # a plateau's metric

    def _steps(self) -> int:
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise ValueError("scheduler: got a training without an end, expected trainer.max_epochs or max_steps")
        return int(steps)

    def _epochs(self) -> int:
        epochs, steps = self.trainer.max_epochs, self.trainer.max_steps
        if steps in (None, -1):
            return int(epochs or 1)
        self.trainer.fit_loop.setup_data()
        each = -(-int(self.trainer.num_training_batches) // self.trainer.accumulate_grad_batches)
        needed = -(-steps // max(1, each))
        return needed if epochs in (None, -1) else min(int(epochs or 1), needed)

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
        made = [[self._make_metrics() for _ in range(self.members)] for _ in self._names]
        self._others = [[{k: v.to(self.device) for k, v in own.items()} for own in members] for members in made]
        if not data.evaluates_share:  # nothing is to be added up over processes: each sees the whole
            for metric in [*self._metrics, *(one for sets in self._others for own in sets for one in own.values())]:
                metric.distributed_available_fn = lambda: False

    def _evaluate(self, batch: Batch, dataloader_idx: int) -> None:
        x, y = batch
        if len(y) == 0:  # the share of one process of several may be empty
            return
        outputs = self.net(x)
        values = [member_losses(self.net, self.loss, outputs, y)]
        if not isinstance(self.net, Members):
            outputs, y = outputs[None], y[None]
        weights = [self._of_members([loss_weight(self.loss, self._kind, own) for own in y])]  # y is [R or 1, B, ...]
        if has_accuracy(self._kind):
            counted = [counted_of(self._kind, targets) for targets in y]
            weights.append(self._of_members(counted))
            y = y.expand(self.members, *y.shape[1:])
            right = hits(self._kind, outputs.flatten(0, 1), y.flatten(0, 1))  # [R * B, ...]
            assert right is not None
            right = right.reshape(self.members, -1).to(values[0].dtype)
            ignored = (y == IGNORED).flatten(1).sum(1)  # [R]; what is ignored is no hit
            values.append(right.sum(1) / (y[0].numel() - ignored) if bool(ignored.any()) else right.mean(1))
        metric = self._metrics[dataloader_idx]
        metric.update(torch.stack(values, dim=1), torch.stack(weights, dim=1).to(metric.sums))
        for own, *pair in zip(self._others[dataloader_idx], outputs, y.expand(self.members, *y.shape[1:]), strict=True):
            fed(own, self._kind, *pair)

    def _of_members(self, values: list[float]) -> Tensor:
        """One value a member [R], float64 on the CPU; of members that share a batch, the same."""
        return torch.tensor(values, dtype=torch.float64).expand(self.members)

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
        for name, others in zip(self._names, self._others, strict=True):
            for value in others[0]:
                self.member_metrics[f"{name}/{value}"] = [own[value].compute().item() for own in others]
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
