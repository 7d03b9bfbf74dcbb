"""Studies answer a question from several finished runs. They never train."""

from hw1.studies.flatness_interp import FlatnessInterp
from hw1.studies.weight_trajectories import WeightTrajectories

__all__ = ["FlatnessInterp", "WeightTrajectories"]
