"""How fast the trained network changes with its inputs."""

import lightning
from lightning.pytorch.callbacks import Callback
from torch import nn

from hw1.data import DataModule
from hw1.landscape import sensitivity
from hw1.models import members_of
from hw1.training.objectives import Loss


class Sensitivity(Callback):
    """Adds the sensitivity of the trained network to the run's metrics (result.json).

    Mean Frobenius norms of derivatives by the input, over all test examples, in evaluation mode; per unit of the input
    as the network gets it. `sensitivity/loss` is that of each example's loss; `sensitivity/softmax` of the class
    probabilities (Novak et al. 2018) and `sensitivity/logits` of the outputs. In regression there is no softmax, and
    the outputs' is `sensitivity/outputs`. See `hw1.landscape.sensitivity`.
    """

    def measure(self, net: nn.Module, loss: Loss, data: DataModule) -> dict[str, float]:
        """The metrics of one network."""
        result = sensitivity(net, loss, *data.test_tensors, batch_size=data.eval_batch_size)
        if result.softmax is None:
            return {"sensitivity/loss": result.loss, "sensitivity/outputs": result.outputs}
        return {
            "sensitivity/loss": result.loss,
            "sensitivity/softmax": result.softmax,
            "sensitivity/logits": result.outputs,
        }

    def on_test_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Measure: the test follows the last epoch, also where a run is resumed behind it."""
        pl_module.add_measured(self.measure(n, pl_module.loss, trainer.datamodule) for n in members_of(pl_module.net))
