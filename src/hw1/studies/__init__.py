"""Studies answer a question from several finished runs. They never train."""

from hw1.studies.flatness_interp import FlatnessInterp

__all__ = ["FlatnessInterp"]
