"""Studies answer a question from several finished runs. They never train. Names load on first use."""

from typing import TYPE_CHECKING

from hw1.on_first_use import from_homes

if TYPE_CHECKING:
    from hw1.studies.actual_task import ActualTask
    from hw1.studies.flatness_interp import FlatnessInterp
    from hw1.studies.flatness_sensitivity import FlatnessSensitivity
    from hw1.studies.gradient_norm import GradientNormCurves
    from hw1.studies.min_ratio import MinRatio
    from hw1.studies.params_vs_generalization import ParamsVsGeneralization
    from hw1.studies.random_labels import RandomLabels
    from hw1.studies.simulate_function import SimulateFunction
    from hw1.studies.weight_trajectories import WeightTrajectories

__all__ = [
    "ActualTask",
    "FlatnessInterp",
    "FlatnessSensitivity",
    "GradientNormCurves",
    "MinRatio",
    "ParamsVsGeneralization",
    "RandomLabels",
    "SimulateFunction",
    "WeightTrajectories",
]

_HOMES = {
    "ActualTask": "actual_task",
    "FlatnessInterp": "flatness_interp",
    "FlatnessSensitivity": "flatness_sensitivity",
    "GradientNormCurves": "gradient_norm",
    "MinRatio": "min_ratio",
    "ParamsVsGeneralization": "params_vs_generalization",
    "RandomLabels": "random_labels",
    "SimulateFunction": "simulate_function",
    "WeightTrajectories": "weight_trajectories",
}

__getattr__, __dir__ = from_homes(__name__, _HOMES)
