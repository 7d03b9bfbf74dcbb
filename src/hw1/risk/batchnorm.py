"""Batch-norm statistics for weights that were never trained, such as points between two networks."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hw1.risk.guard import modes_kept


def has_batch_norm(module: nn.Module) -> bool:
    """Whether some layer of `module` keeps running statistics."""
    return any(isinstance(layer, _BatchNorm) and layer.track_running_stats for layer in module.modules())


def without_statistics(module: nn.Module) -> str:
    """The name of a batch-norm that normalises by its batch in evaluation mode too; "" where there is none."""
    layers = ((name, layer) for name, layer in module.named_modules() if isinstance(layer, _BatchNorm))
    return next((name or type(layer).__name__ for name, layer in layers if layer.running_mean is None), "")


@torch.no_grad()
def recompute_statistics(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace running means and variances by the averages over `batches`, in place.

    The other layers stay in evaluation mode (torch.optim.swa_utils.update_bn would switch dropout on), and modes and
    momenta are left as they were. Averages weigh every example equally, also in a ragged last batch.

    Args:
        module: a network with batch-norm layers.
        batches: inputs [B, ...] of the training set.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    momenta = {layer: layer.momentum for layer in layers}
    with modes_kept(module):
        try:
            module.eval()
            for layer in layers:
                layer.reset_running_stats()
                layer.train()
            seen = 0
            for inputs in batches:
                seen += len(inputs)
                for layer in layers:  # running = (1 - momentum) running + momentum batch: a mean over examples
                    layer.momentum = len(inputs) / seen
                module(inputs)
        finally:
            for layer, momentum in momenta.items():
                layer.momentum = momentum
