import doctest
from importlib import import_module

import pytest

MODULES = [
    "hw1.vectors",
    "hw1.curvature.critical",
    "hw1.curvature.estimate",
    "hw1.curvature.exact",
    "hw1.curvature.lanczos",
    "hw1.curvature.layerwise",
    "hw1.curvature.minimal_ratio",
    "hw1.curvature.operators",
    "hw1.curvature.points",
    "hw1.curvature.risk",
    "hw1.curvature.trace",
    "hw1.landscape.evaluation",
    "hw1.landscape.flatness",
    "hw1.landscape.paths",
    "hw1.landscape.pca",
    "hw1.models.budget",
    "hw1.models.cnn",
    "hw1.models.mlp",
    "hw1.models.rnn",
    "hw1.report.claims",
    "hw1.report.finished",
    "hw1.report.results",
    "hw1.report.statistic",
    "hw1.studies.learning_curves",
    "hw1.studies.protocol",
    "hw1.training.budget",
    "hw1.training.estimate",
    "hw1.command",
    "hw1.runs",
]


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings(module):
    result = doctest.testmod(import_module(module))
    assert result.failed == 0 and result.attempted > 0
