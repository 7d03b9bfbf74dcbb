"""Curvature of any nn.Module's loss: Hessian products, spectra, traces and minimal ratios.

Knows neither Lightning nor Hydra: bring a module, a loss and batches.
"""

from hw1.curvature.adapter import (
    Wrapped,
    as_operator,
)
from hw1.curvature.algebra import (
    Algebra,
    Combination,
)
from hw1.curvature.checkpoint import (
    Checkpoint,
    Progress,
)
from hw1.curvature.critical import (
    CriticalPoint,
    CriticalPoints,
    Method,
    constant_predictor,
    find_critical_point,
    find_critical_points,
)
from hw1.curvature.density import (
    Density,
    LogDensity,
)
from hw1.curvature.diagonal import (
    Diagonal,
    exact_diagonal,
    hutchinson_diagonal,
    xdiag,
)
from hw1.curvature.differences import (
    HessianByDifferences,
    ProductByDifferences,
)
from hw1.curvature.estimate import (
    Estimate,
    Share,
)
from hw1.curvature.exact import (
    spectrum,
)
from hw1.curvature.fisher import (
    EmpiricalFisher,
    McFisher,
)
from hw1.curvature.lanczos import (
    Eigenpairs,
    extreme_eigenpairs,
    probe_density,
    spectral_density,
)
from hw1.curvature.minimal_ratio import (
    CRITICAL,
    LADDER,
    EstimatedRatio,
    Ratio,
    ladder,
    minimal_ratio,
    quadrature_ratio,
    sampled_ratio,
)
from hw1.curvature.operators import (
    Dense,
    GaussNewton,
    Hessian,
    Operator,
)
from hw1.curvature.solve import (
    Solution,
    solve,
)
from hw1.curvature.trace import (
    hutchinson_trace,
    hutchpp_trace,
)
from hw1.curvature.xtrace import (
    xtrace,
)
from hw1.risk.dense import (
    dense_hessian,
)
from hw1.risk.empirical import (
    EmpiricalRisk,
)
from hw1.risk.first_order import (
    GradientNoise,
    gradient_noise,
    per_example_gradients,
)
from hw1.risk.jacobian import (
    Jacobian,
)
from hw1.risk.many import (
    FunctionRisk,
    OneByOne,
    batched,
)
from hw1.risk.protocol import (
    BatchedRisk,
)

__all__ = [
    "CRITICAL",
    "LADDER",
    "Algebra",
    "BatchedRisk",
    "Checkpoint",
    "Combination",
    "CriticalPoint",
    "CriticalPoints",
    "Dense",
    "Density",
    "Diagonal",
    "Eigenpairs",
    "EmpiricalFisher",
    "EmpiricalRisk",
    "Estimate",
    "EstimatedRatio",
    "FunctionRisk",
    "GaussNewton",
    "GradientNoise",
    "Hessian",
    "HessianByDifferences",
    "Jacobian",
    "LogDensity",
    "McFisher",
    "Method",
    "OneByOne",
    "Operator",
    "ProductByDifferences",
    "Progress",
    "Ratio",
    "Share",
    "Solution",
    "Wrapped",
    "as_operator",
    "batched",
    "constant_predictor",
    "dense_hessian",
    "exact_diagonal",
    "extreme_eigenpairs",
    "find_critical_point",
    "find_critical_points",
    "gradient_noise",
    "hutchinson_diagonal",
    "hutchinson_trace",
    "hutchpp_trace",
    "ladder",
    "minimal_ratio",
    "per_example_gradients",
    "probe_density",
    "quadrature_ratio",
    "sampled_ratio",
    "solve",
    "spectral_density",
    "spectrum",
    "xdiag",
    "xtrace",
]
