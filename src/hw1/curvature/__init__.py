"""Curvature of any nn.Module's loss: Hessian products, spectra, traces and minimal ratios.

Knows neither Lightning nor Hydra: bring a module, a loss and batches.
"""

from hw1.curvature.estimate import Estimate
from hw1.curvature.exact import dense_hessian, spectrum
from hw1.curvature.lanczos import Density, Eigenpairs, extreme_eigenpairs, spectral_density
from hw1.curvature.minimal_ratio import EstimatedRatio, Ratio, ladder, minimal_ratio, quadrature_ratio, sampled_ratio
from hw1.curvature.operators import Dense, GaussNewton, Hessian, Operator
from hw1.curvature.risk import EmpiricalRisk
from hw1.curvature.trace import hutchinson_trace, hutchpp_trace

__all__ = [
    "Dense",
    "Density",
    "Eigenpairs",
    "EmpiricalRisk",
    "Estimate",
    "EstimatedRatio",
    "GaussNewton",
    "Hessian",
    "Operator",
    "Ratio",
    "dense_hessian",
    "extreme_eigenpairs",
    "hutchinson_trace",
    "hutchpp_trace",
    "ladder",
    "minimal_ratio",
    "quadrature_ratio",
    "sampled_ratio",
    "spectral_density",
    "spectrum",
]
