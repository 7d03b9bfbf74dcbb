"""Curvature of any nn.Module's loss: Hessian products, spectra, traces and minimal ratios.

Knows neither Lightning nor Hydra: bring a module, a loss and batches.
"""

from hw1.curvature.critical import (
    CriticalPoint,
    CriticalPoints,
    Method,
    constant_predictor,
    find_critical_point,
    find_critical_points,
)
from hw1.curvature.estimate import Estimate
from hw1.curvature.exact import dense_hessian, spectrum
from hw1.curvature.lanczos import Density, Eigenpairs, extreme_eigenpairs, spectral_density
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
from hw1.curvature.operators import Dense, GaussNewton, Hessian, Operator
from hw1.curvature.points import Function, ManyPoints, OneByOne, many_points
from hw1.curvature.risk import EmpiricalRisk
from hw1.curvature.trace import hutchinson_trace, hutchpp_trace

__all__ = [
    "CRITICAL",
    "LADDER",
    "CriticalPoint",
    "CriticalPoints",
    "Dense",
    "Density",
    "Eigenpairs",
    "EmpiricalRisk",
    "Estimate",
    "EstimatedRatio",
    "Function",
    "GaussNewton",
    "Hessian",
    "ManyPoints",
    "Method",
    "OneByOne",
    "Operator",
    "Ratio",
    "constant_predictor",
    "dense_hessian",
    "extreme_eigenpairs",
    "find_critical_point",
    "find_critical_points",
    "hutchinson_trace",
    "hutchpp_trace",
    "ladder",
    "many_points",
    "minimal_ratio",
    "quadrature_ratio",
    "sampled_ratio",
    "spectral_density",
    "spectrum",
]
