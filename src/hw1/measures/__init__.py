"""Measures: what is read off the weights of a run's members, while it trains or any time later. No torch at import."""

from hw1.measures.minimal_ratio import MinimalRatio
from hw1.measures.predictions import Predictions
from hw1.measures.protocol import Column, Finding, Measure, Subject, Weights
from hw1.measures.sensitivity import Sensitivity
from hw1.measures.sharpness import Sharpness
from hw1.measures.spectrum import Spectrum

__all__ = [
    "Column",
    "Finding",
    "Measure",
    "MinimalRatio",
    "Predictions",
    "Sensitivity",
    "Sharpness",
    "Spectrum",
    "Subject",
    "Weights",
]
