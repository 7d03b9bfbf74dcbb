"""Stopped and resumed computations give the bits of those that were not stopped, for no more products."""

import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hw1.curvature import Checkpoint, Dense, Progress, extreme_eigenpairs, spectral_density


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def matrix_of(values, seed=0, dtype=torch.float64):
    values = torch.as_tensor(values, dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64, generator=seeded(seed)))
    matrix = q @ torch.diag(values) @ q.T
    return ((matrix + matrix.T) / 2).to(dtype)


class Counted(Dense):
    """Counts its products; raises at one of them."""

    def __init__(self, matrix, stop_at=None, error=KeyboardInterrupt):
        super().__init__(matrix)
        self.products, self.stop_at, self.error = 0, stop_at, error

    def matvec(self, v):
        if self.products == self.stop_at:
            raise self.error
        self.products += 1
        return super().matvec(v)


def eigenpairs(op, generator, **more):
    pairs = extreme_eigenpairs(op, 4, "both", tol=1e-7, basis_size=20, generator=generator, **more)
    return pairs.values, pairs.vectors, pairs.residuals, torch.tensor(pairs.products)


def repeated(op, generator, **more):
    pairs = extreme_eigenpairs(op, 3, tol=1e-8, generator=generator, start=torch.ones(op.size), **more)
    return pairs.values, pairs.vectors, pairs.residuals, torch.tensor(pairs.products)


def density(op, generator, **more):
    found = spectral_density(op, probes=4, steps=12, generator=generator, **more)
    return found.nodes, found.weights, found.residuals


CASES = {
    "gapless, with restarts": (eigenpairs, torch.linspace(-1, 1, 60)),
    "repeated, with fresh directions": (repeated, torch.tensor([3.0] * 3 + [1.0] * 27)),
    "density": (density, torch.linspace(-1, 1, 60)),
    "density that ends early": (density, torch.tensor([3.0] * 3 + [1.0] * 27)),
}


@pytest.mark.filterwarnings("ignore:the largest residual is")  # float32 does not reach the tolerance
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_stopped_anywhere_it_goes_on_to_the_same_bits(case, dtype, tmp_path):
    compute, values = CASES[case]
    matrix = matrix_of(values, dtype=dtype)
    randomness = seeded(3)
    op = Counted(matrix)
    expected = compute(op, randomness)
    path = tmp_path / "basis"
    for stop_at in [*range(1, op.products, max(1, op.products // 12)), op.products - 1, op.products]:
        stopped, generator = Counted(matrix, stop_at), seeded(3)
        with pytest.raises(KeyboardInterrupt):
            compute(stopped, generator, checkpoint=path)
        assert path.exists() == (stop_at > 1)  # the first product only tells the operator from others
        assert torch.equal(generator.get_state(), seeded(3).get_state())
        resumed = Counted(matrix)
        found = compute(resumed, generator, checkpoint=path)
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)
        assert torch.equal(generator.get_state(), randomness.get_state())
        # One product more a call; of the last k, which measure the residuals, those before the stop.
        assert op.products + 2 <= stopped.products + resumed.products <= op.products + 2 + 4
        assert not path.exists() and not list(tmp_path.iterdir())


def test_stopped_again_and_again(tmp_path):
    matrix = matrix_of(torch.linspace(-1, 1, 60))
    for compute in (eigenpairs, density):
        expected = compute(Dense(matrix), seeded(3))
        calls = 0
        while True:
            calls += 1
            try:
                found = compute(Counted(matrix, 7, RuntimeError), seeded(3), checkpoint=tmp_path / "basis")
                break
            except RuntimeError:
                continue
        assert calls > 5
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("compute", [eigenpairs, density])
def test_progress_is_told_and_may_stop_it(compute, tmp_path):
    matrix = matrix_of(torch.linspace(-1, 1, 60))
    told = []
    op = Counted(matrix)
    expected = compute(op, seeded(3), progress=told.append)
    spent = op.products - (4 if compute is eigenpairs else 0)
    assert [one.products for one in told] == list(range(1, spent + 1))
    assert all(isinstance(one, Progress) and one.products <= one.most for one in told)
    if compute is eigenpairs:
        assert math.isnan(told[0].residual) and told[-1].residual <= 1e-7

    def stop(progress):
        if progress.products == 9:
            raise TimeoutError("enough")

    with pytest.raises(TimeoutError, match=r"^enough$"):
        compute(Dense(matrix), seeded(3), checkpoint=tmp_path / "basis", progress=stop)
    resumed = []
    found = compute(Dense(matrix), seeded(3), checkpoint=str(tmp_path / "basis"), progress=resumed.append)
    assert resumed[0].products == 10
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_it_is_written_now_and_then(tmp_path):
    """A killed process has written nothing at its end: what lies there is from before."""
    matrix, path = matrix_of(torch.linspace(-1, 1, 60)), tmp_path / "basis"
    for settings, expected in (({"products": 5}, 5), ({"seconds": 0}, 1), ({}, None)):
        seen = []

        def look(progress, seen=seen):
            if path.exists():
                seen.append((progress.products, path.stat().st_mtime_ns))

        eigenpairs(Dense(matrix), seeded(3), checkpoint=Checkpoint(path, **settings), progress=look)
        written = [products - 1 for products, time in seen]
        assert written[:1] == ([] if expected is None else [expected])
        assert not path.exists()


def test_a_killed_process_goes_on_from_the_last_writing(tmp_path):
    matrix, path = matrix_of(torch.linspace(-1, 1, 60)), tmp_path / "basis"
    kept = []

    def keep(progress):
        if path.exists():
            kept.append(path.read_bytes())

    for compute in (eigenpairs, density):
        expected = compute(Dense(matrix), seeded(3), checkpoint=Checkpoint(path, products=6), progress=keep)
        for content in {*kept}:
            path.write_bytes(content)
            found = compute(Dense(matrix), seeded(3), checkpoint=path)
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        kept.clear()


def test_another_operator_or_other_settings_are_refused(tmp_path):
    matrix, path = matrix_of(torch.linspace(-1, 1, 60)), tmp_path / "basis"
    with pytest.raises(KeyboardInterrupt):
        extreme_eigenpairs(Counted(matrix, 9), 2, generator=seeded(), checkpoint=path)
    begun = path.read_bytes()
    refused = [
        (lambda: extreme_eigenpairs(Dense(matrix * 1.001), 2, generator=seeded(), checkpoint=path), "another operator"),
        (lambda: extreme_eigenpairs(Dense(matrix), 3, generator=seeded(), checkpoint=path), "of k 2, expected 3: give"),
        (
            lambda: extreme_eigenpairs(Dense(matrix), 2, "smallest", generator=seeded(), checkpoint=path),
            "of which largest, expected smallest: give",
        ),
        (
            lambda: extreme_eigenpairs(Dense(matrix), 2, tol=1e-3, generator=seeded(), checkpoint=path),
            r"of tol 0\.0001, expected 0\.001: give",
        ),
        (lambda: extreme_eigenpairs(Dense(matrix), 2, generator=seeded(1), checkpoint=path), "of generator "),
        (
            lambda: extreme_eigenpairs(Dense(matrix), 2, generator=seeded(), start=torch.ones(60), checkpoint=path),
            "of start None, expected ",
        ),
        (
            lambda: extreme_eigenpairs(Dense(matrix.float()), 2, generator=seeded(), checkpoint=path),
            r"of dtype torch\.float64, expected torch\.float32: give",
        ),
        (
            lambda: extreme_eigenpairs(Dense(matrix[:9, :9]), 2, generator=seeded(), checkpoint=path),
            "of size 60, expected 9: give",
        ),
        (
            lambda: spectral_density(Dense(matrix), generator=seeded(), checkpoint=path),
            "of kind eigenpairs, expected density: give",
        ),
    ]
    for call, why in refused:
        with pytest.raises(ValueError, match=rf"^checkpoint: got \S+basis {why}|^checkpoint: got \S+basis of {why}"):
            call()
        assert path.read_bytes() == begun  # it is still there for whom it belongs to
    path.write_bytes(begun[:100])
    with pytest.raises(ValueError, match=r"^checkpoint: got \S+basis, which is none \(.*\), expected .*: delete it$"):
        extreme_eigenpairs(Dense(matrix), 2, generator=seeded(), checkpoint=path)


def changed(path, tensors, numbers):
    """The checkpoint with other tensors and numbers; those that are None are left out."""
    with safe_open(path, "pt") as opened:
        said = opened.metadata()
        held = {name: opened.get_tensor(name) for name in (*opened.keys(),)} | tensors
    numbers = json.loads(said["numbers"]) | numbers if isinstance(numbers, dict) else numbers
    if isinstance(numbers, dict):
        numbers = {name: number for name, number in numbers.items() if number is not None}
    said["numbers"] = json.dumps(numbers)
    save_file({name: tensor.contiguous() for name, tensor in held.items() if tensor is not None}, path, said)


DOUBLES = torch.zeros(3).double()
STRANGE = {
    "product of another size": (None, {"product": DOUBLES}, {}, "another operator"),
    "no generator": (None, {"generator": None}, {}, "which is none"),
    "another generator": (None, {"generator": torch.zeros(3, dtype=torch.uint8)}, {}, "generator"),
    "a generator of zeros": (None, {"generator": torch.zeros(5056, dtype=torch.uint8)}, {}, "generator"),
    "a list": (None, {}, [1], "which is none"),
    "missing": (None, {}, {"products": None}, "products None, expected an integer"),
    "of another type": (None, {}, {"scale": "op"}, "scale 'op', expected a number"),
    "negative": (None, {}, {"products": -1}, "products -1, expected an integer"),
    "too many directions": (eigenpairs, {}, {"count": 21}, "count 21, expected at most 20"),
    "fewer directions": (eigenpairs, {}, {"count": 2}, "basis "),
    "more lengths": (eigenpairs, {}, {"beside": [1.0] * 12}, "beside of 12"),
    "wanted values of another length": (eigenpairs, {"before": DOUBLES}, {}, "before "),
    "no basis": (None, {"basis": None}, {}, "basis None"),
    "too many probes": (density, {}, {"probe": 5}, "probe 5, expected at most 4"),
    "a list of texts": (density, {}, {"diagonal": ["a"]}, r"diagonal \['a'\], expected a list"),
    "a longer list": (density, {}, {"diagonal": [1.0] * 12}, "diagonal of 12"),
    "no direction": (density, {"direction": None}, {}, "direction None"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strangers_file_is_refused_in_one_line(name, tmp_path):
    only, tensors, numbers, why = STRANGE[name]
    matrix, path = matrix_of(torch.linspace(-1, 1, 60)), tmp_path / "basis"
    for compute in (eigenpairs, density) if only is None else (only,):
        with pytest.raises(KeyboardInterrupt):
            compute(Counted(matrix, 9), seeded(), checkpoint=path)
        changed(path, tensors, numbers)
        generator = seeded()
        with pytest.raises(ValueError, match=rf"^checkpoint: got [^\n]*{why}[^\n]*: (delete|give)[^\n]*$"):
            compute(Dense(matrix), generator, checkpoint=path)
        assert torch.equal(generator.get_state(), seeded().get_state())  # so that the same call goes on
        path.unlink()


def test_a_file_sets_nothing_but_its_numbers(tmp_path):
    matrix, path = matrix_of(torch.linspace(-1, 1, 60)), tmp_path / "basis"
    for compute in (eigenpairs, density):
        with pytest.raises(KeyboardInterrupt):
            compute(Counted(matrix, 9), seeded(), checkpoint=path)
        changed(path, {}, {"op": "mine", "step": 3})
        found = compute(Dense(matrix), seeded(), checkpoint=path)
        expected = compute(Dense(matrix), seeded())
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"^seconds: got -1, expected at least 0: 0 writes after every product$"):
        Checkpoint("basis", seconds=-1)
    with pytest.raises(ValueError, match=r"^products: got 0, expected at least 1, or None: None leaves it to seconds$"):
        Checkpoint("basis", products=0)
    with pytest.raises(ValueError, match=r"^max_products: got 2, expected at least 3, the number of pairs$"):
        extreme_eigenpairs(Dense(torch.eye(5)), 3, max_products=2, generator=seeded())
