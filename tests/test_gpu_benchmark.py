"""benchmarks/gpu.py runs without a GPU, on small sizes: every tool has a row, with a right product or the reason."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # 10 seconds; its figures need a GPU, and the measures have tests of their own

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def output() -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, SCRIPT, "--tiny"], capture_output=True, text=True, env=environment, timeout=300
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout


def rows(output: str, tool: str) -> list[list[str]]:
    lines = [line for line in output.splitlines() if line.startswith(f"| {tool} |")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_device_and_versions_come_first(output: str) -> None:
    first = output.splitlines()[0]
    assert "torch" in first and "hw1" in first


def test_both_networks_have_a_table(output: str) -> None:
    assert "a residual block, 8 images" in output and "GPT-2 of" in output


@pytest.mark.parametrize("tool", ["hw1", "by hand"])
def test_products_are_right_in_float32(output: str, tool: str) -> None:
    found = [row for row in rows(output, tool) if row[1] == "ieee"]
    assert len(found) == 2
    for row in found:
        assert float(row[2]) < 1e-4


def test_hw1_has_every_measure_in_the_precision_of_its_peers(output: str) -> None:
    for row in rows(output, "hw1"):
        if row[1] == "tf32":
            assert all(" s, " in cell for cell in row[4:])


@pytest.mark.parametrize("tool", ["PyHessian", "curvlinops"])
def test_a_peer_has_a_row_also_where_it_is_not_installed(output: str, tool: str) -> None:
    assert len(rows(output, tool)) == 2


def test_other_sizes_ask_for_a_gpu() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, env=environment, timeout=300)
    assert run.returncode == 2 and "--tiny" in run.stderr
