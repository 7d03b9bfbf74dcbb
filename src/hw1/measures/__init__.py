"""Measures: what is read off the weights of a run's members, while it trains or any time later.

No torch at import; names load on first use.
"""

from typing import TYPE_CHECKING

from hw1.on_first_use import from_homes

if TYPE_CHECKING:
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

_HOMES = {
    "Column": "protocol",
    "Finding": "protocol",
    "Measure": "protocol",
    "MinimalRatio": "minimal_ratio",
    "Predictions": "predictions",
    "Sensitivity": "sensitivity",
    "Sharpness": "sharpness",
    "Spectrum": "spectrum",
    "Subject": "protocol",
    "Weights": "protocol",
}

__getattr__, __dir__ = from_homes(__name__, _HOMES)
