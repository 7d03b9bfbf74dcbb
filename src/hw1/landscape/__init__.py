"""Loss landscapes of any nn.Module: paths through weight space, and a network's loss along them.

Knows neither Lightning nor Hydra: bring a module, a loss and tensors.
"""

from hw1.landscape.batchnorm import has_batch_norm, recompute_statistics
from hw1.landscape.evaluation import WholeSet
from hw1.landscape.paths import barrier, evaluate, segment
from hw1.landscape.pca import Pca, displacements, fit_pca

__all__ = [
    "Pca",
    "WholeSet",
    "barrier",
    "displacements",
    "evaluate",
    "fit_pca",
    "has_batch_norm",
    "recompute_statistics",
    "segment",
]
