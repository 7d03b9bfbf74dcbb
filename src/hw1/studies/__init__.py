"""Studies answer a question from several finished runs. They never train."""

from hw1.studies.flatness_interp import FlatnessInterp
from hw1.studies.flatness_sensitivity import FlatnessSensitivity
from hw1.studies.gradient_norm import GradientNorm
from hw1.studies.min_ratio import MinRatio
from hw1.studies.weight_trajectories import WeightTrajectories

__all__ = ["FlatnessInterp", "FlatnessSensitivity", "GradientNorm", "MinRatio", "WeightTrajectories"]
