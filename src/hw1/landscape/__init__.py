"""Loss landscapes of any nn.Module: paths through weight space, a network's loss along them, and how flat it is.

Knows neither Lightning nor Hydra: bring a module, a loss and tensors.
"""

from hw1.landscape.batchnorm import has_batch_norm, recompute_statistics
from hw1.landscape.evaluation import WholeSet
from hw1.landscape.flatness import Sensitivity, Sharpness, adaptive_sharpness, keskar_sharpness, sensitivity
from hw1.landscape.paths import barrier, evaluate, segment
from hw1.landscape.pca import Pca, displacements, fit_pca

__all__ = [
    "Pca",
    "Sensitivity",
    "Sharpness",
    "WholeSet",
    "adaptive_sharpness",
    "barrier",
    "displacements",
    "evaluate",
    "fit_pca",
    "has_batch_norm",
    "keskar_sharpness",
    "recompute_statistics",
    "segment",
    "sensitivity",
]
