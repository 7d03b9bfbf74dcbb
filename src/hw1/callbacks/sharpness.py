"""How fast the trained network's loss rises around its weights."""

import math

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from hw1.curvature import EmpiricalRisk, Hessian, extreme_eigenpairs, hutchpp_trace
from hw1.data import DataModule
from hw1.data.batches import generator
from hw1.data.labels import subset
from hw1.landscape import adaptive_sharpness, keskar_sharpness
from hw1.models import members_of
from hw1.training.objectives import Loss

KEPT = 4096  # examples whose graph is kept between products: above, memory counts for more than time


class Sharpness(Callback):
    """Adds the sharpness of the trained network to the run's metrics (result.json).

    Of the mean training loss in evaluation mode, over a random part of the training set (stratified by class). For a
    CNN of 14,718 parameters and 4,000 images of MNIST, three parts of 1,024 and the whole differed by 5% in the largest
    eigenvalue and 15% in `sharpness/keskar_5e-4`, and a part took 12 to 16 seconds of one core.

    - `sharpness/keskar_1e-3`, `sharpness/keskar_5e-4`: Keskar et al. 2017, see `hw1.landscape.keskar_sharpness`
    - `sharpness/adaptive`: unchanged by rescaling, see `hw1.landscape.adaptive_sharpness`; in the unit of the loss
    - `sharpness/largest_eigenvalue` of the Hessian, to a residual of 0.1%
    - `sharpness/trace` of the Hessian, estimated (Hutch++), with `sharpness/trace_standard_error`

    Args:
        examples: number of training examples; null for all.
        rho: half the width of the box of `sharpness/adaptive`, relative to each weight.
        trace_products: Hessian-vector products that the trace may take, at least 6.
        seed: of the choice of examples, and of the starts and probes.

    Raises:
        ValueError: a value is out of range; the message begins with its name.
    """

    def __init__(self, examples: int | None, rho: float, trace_products: int, seed: int) -> None:
        if examples is not None and examples < 1:
            raise ValueError(f"examples: got {examples}, expected a positive integer or null (all)")
        if not (rho > 0 and math.isfinite(rho)):
            raise ValueError(f"rho: got {rho}, expected a positive number")
        if trace_products < 6:
            raise ValueError(f"trace_products: got {trace_products}, expected at least 6")
        self._examples, self._rho, self._products, self._seed = examples, rho, trace_products, seed

    def measure(self, net: nn.Module, loss: Loss, data: DataModule) -> dict[str, float]:
        """The metrics of one network."""
        x, y = data.train_tensors
        if self._examples is not None and self._examples < len(x):
            kept = subset(y, self._examples, self._generator("examples"))
            x, y = x[kept], y[kept]
        risk = EmpiricalRisk(net, loss, [(x, y)], keep_graph=len(x) <= KEPT)
        theta = risk.theta
        hessian = Hessian(risk, theta)
        largest = extreme_eigenpairs(hessian, 1, tol=1e-3, generator=self._generator("eigenvalue"))
        trace = hutchpp_trace(hessian, products=self._products, generator=self._generator("trace"))
        wide, narrow = (keskar_sharpness(risk, theta, e, generator=self._generator("box")) for e in (1e-3, 5e-4))
        adaptive = adaptive_sharpness(risk, theta, self._rho, generator=self._generator("box"))
        return {
            "sharpness/keskar_1e-3": wide.value,
            "sharpness/keskar_5e-4": narrow.value,
            "sharpness/adaptive": adaptive.value,
            "sharpness/largest_eigenvalue": largest.values[0].item(),
            "sharpness/trace": trace.value,
            "sharpness/trace_standard_error": trace.standard_error,
        }

    def _generator(self, purpose: str) -> torch.Generator:
        return generator(self._seed, f"sharpness {purpose}")

    def on_test_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Measure: the test follows the last epoch, also where a run is resumed behind it."""
        with torch.inference_mode(False):
            pl_module.add_measured(
                self.measure(n, pl_module.loss, trainer.datamodule) for n in members_of(pl_module.net)
            )
