"""Loss landscapes of any nn.Module: paths through weight space, a network's loss along them, and how flat it is.

Knows neither Lightning nor Hydra: bring a module, a loss and tensors.
"""

from hw1.landscape.flatness import BoxRise, InputSensitivity, adaptive_sharpness, keskar_sharpness, sensitivity
from hw1.landscape.paths import barrier, evaluate, segment
from hw1.landscape.pca import Pca, displacements, fit_pca
from hw1.landscape.token_sensitivity import token_sensitivity
from hw1.risk.batchnorm import has_batch_norm, recompute_statistics
from hw1.risk.whole import WholeSet

__all__ = [
    "BoxRise",
    "InputSensitivity",
    "Pca",
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
    "token_sensitivity",
]
