"""The examples in docstrings, of every module that has one."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
MODULES = [
    path.relative_to(SRC).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    for path in sorted(SRC.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings(module):
    result = doctest.testmod(import_module(module))
    assert result.failed == 0 and result.attempted > 0


def test_library_rooms_have_examples():
    assert len(MODULES) > 25 and {name.split(".")[1] for name in MODULES} >= {
        "risk",
        "curvature",
        "landscape",
        "vectors",
    }
