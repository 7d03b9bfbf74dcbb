"""The one LightningModule."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

Loss = Callable[[Tensor, Tensor], Tensor]
Batch = tuple[Tensor, Tensor]


class Task(lightning.LightningModule):
    """Minimises a loss, and reports exact means over whole sets in evaluation mode.

    Each evaluation logs `<set>/loss` (the unit of the loss; nats for cross-entropy) and, for classes, `<set>/accuracy`
    for every set in the datamodule's `eval_names`: example-weighted over the whole set, also with a ragged last batch.

    Args:
        net: the network, [B, ...] -> [B, out_features].
        loss: (outputs, targets) -> mean over the batch [].
        optimizer: parameters -> optimizer.
        scheduler: optimizer -> learning-rate scheduler, stepped every epoch; None for none.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Loss,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.loss = loss
        self._make_optimizer = optimizer
        self._make_scheduler = scheduler
        # Plain containers, so that the state_dict holds the network and nothing else.
        self._metrics: list[dict[str, Metric]] = []
        self._names: tuple[str, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        """The network's outputs."""
        return self.net(x)

    def configure_optimizers(self) -> Any:
        """The optimizer, with its scheduler if there is one."""
        optimizer = self._make_optimizer(self.net.parameters())
        if self._make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self._make_scheduler(optimizer)}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean loss of a mini-batch, []."""
        x, y = batch
        return self.loss(self.net(x), y)

    def _start_evaluation(self) -> None:
        data = self.trainer.datamodule
        classes = None if data.test_tensors[1].is_floating_point() else data.out_features
        self._names = data.eval_names
        self._metrics = []
        precise = torch.float32 if self.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        for _ in self._names:
            # NaN stands for itself: a MeanMetric's "warn" leaves NaN out of the mean, its "disable" ignores weights.
            # float64 keeps the digits of float32 terms.
            metrics: dict[str, Metric] = {"loss": MeanMetric(nan_strategy=math.nan).set_dtype(precise)}
            if classes is not None:
                metrics["accuracy"] = MulticlassAccuracy(classes, average="micro", validate_args=False)
            self._metrics.append({name: metric.to(self.device) for name, metric in metrics.items()})

    def _evaluate(self, batch: Batch, dataloader_idx: int) -> None:
        x, y = batch
        outputs = self.net(x)
        for name, metric in self._metrics[dataloader_idx].items():
            if name == "loss":
                metric.update(self.loss(outputs, y), weight=len(x))
            else:
                metric.update(outputs, y)

    def _finish_evaluation(self, **log: Any) -> None:
        for name, metrics in zip(self._names, self._metrics, strict=True):
            values = {f"{name}/{metric}": value.compute() for metric, value in metrics.items()}
            self.log_dict(values, add_dataloader_idx=False, **log)

    def on_validation_epoch_start(self) -> None:
        """Fresh metrics."""
        self._start_evaluation()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the metrics of its set."""
        self._evaluate(batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of every set."""
        self._finish_evaluation()

    def on_test_epoch_start(self) -> None:
        """Fresh metrics."""
        self._start_evaluation()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the metrics of its set."""
        self._evaluate(batch, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        """Return the metrics through trainer.test; the loggers have them from the last epoch already."""
        self._finish_evaluation(logger=False)
