"""Loss landscapes of any nn.Module: paths through weight space, and a network's loss along them.

Knows neither Lightning nor Hydra: bring a module, a loss and tensors.
"""

from hw1.landscape.batchnorm import has_batch_norm, recompute_statistics
from hw1.landscape.evaluation import WholeSet
from hw1.landscape.paths import barrier, evaluate, segment

__all__ = ["WholeSet", "barrier", "evaluate", "has_batch_norm", "recompute_statistics", "segment"]
