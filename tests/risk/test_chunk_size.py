"""The choice of the number of examples at a time: fake clocks and memories; true tensors where bytes are counted."""

import gc
import itertools
import warnings
import weakref

import pytest
import torch
from torch import nn

from hw1.risk.chunk_size import (
    BRIEF,
    SECONDS,
    SHARE,
    ChunkChoice,
    choose_chunk,
    sizes_to_try,
)
from hw1.risk.memory import Memory, free_on, halving, memory_of, out_of_memory

CPU, GPU = torch.device("cpu"), torch.device("meta")  # any device that is no CPU has the GPU's sizes


class Machine:
    """Runs that take told seconds by a fake clock and, above a told size, run out of memory."""

    def __init__(self, seconds_each, holds=float("inf"), first=0.0, error=None):
        self.now, self.sizes, self._warm = 0.0, [], first
        self._seconds_each, self._holds = seconds_each, holds
        self._error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore")

    def clock(self):
        return self.now

    def __call__(self, size):
        self.sizes.append(size)
        if size > self._holds:
            raise self._error
        self.now += size * self._seconds_each(size) + self._warm
        self._warm = 0.0

    def choose(self, examples, device=GPU, needs=(0.0, 1.0), free=float("inf")):
        return choose_chunk(self, examples, device, needs=Memory(*needs), free=free, clock=self.clock)


# ms of a gradient of 4,096 images by ResNet-18 on an H200, by chunk, and the best of them (64 was not measured).
H200 = {
    "float32": ({64: 400, 256: 175, 1024: 145, 4096: 238}, 1024),
    "tf32": ({64: 350, 256: 130, 1024: 38, 4096: 32}, 4096),
}


@pytest.mark.parametrize("precision", H200)
def test_the_fastest_of_what_an_h200_took(precision):
    milliseconds, best = H200[precision]
    machine = Machine(lambda size: milliseconds[size] / 4096 / 1000, first=0.3)
    choice = machine.choose(4096)
    assert choice.chunk == best and choice.ended == "all"
    # Three runs each, of which the first warmed up; one number each is what is kept.
    assert machine.sizes == [size for size in milliseconds for _ in range(3)]
    assert dict(choice.tried) == pytest.approx({size: ms / 4096 / 1000 for size, ms in milliseconds.items()})


def test_a_choice_is_fixed_by_its_measurements_and_says_them():
    choices = [Machine(lambda size: 1e-4 + 1e-3 / size).choose(3000, CPU) for _ in range(2)]
    assert choices[0] == choices[1]
    assert (
        str(ChunkChoice(256, ((64, 0.001), (256, 0.0005)), "all"))
        == "chunk_size 256 (ms an example at 64: 1, 256: 0.5)"
    )
    assert str(ChunkChoice(3, (), "memory")) == "chunk_size 3"


def test_it_ends_where_larger_is_slower_twice():
    machine = Machine({32: 1e-6, 128: 2e-6, 512: 3e-6, 2048: 1e-7}.get)
    choice = machine.choose(60_000, CPU)
    assert (choice.chunk, choice.ended) == (32, "slower") and set(machine.sizes) == {32, 128, 512}
    machine = Machine({32: 1e-6, 128: 2e-6, 512: 5e-7, 2048: 1e-7}.get)
    assert machine.choose(60_000, CPU).chunk == 2048  # slower once is no end


def test_what_is_nearly_as_fast_and_smaller_is_taken():
    machine = Machine({32: 2e-6, 128: 1.02e-6, 512: 1e-6, 2048: 1.01e-6}.get)
    assert machine.choose(60_000, CPU).chunk == 128


def test_a_large_net_costs_no_more_than_a_few_seconds():
    machine = Machine(lambda size: 0.05)  # 3.2 s at 64, 12.8 s at 256
    choice = machine.choose(4096)
    assert (choice.chunk, choice.ended) == (64, "time") and machine.sizes == [64] and machine.now < SECONDS
    slow = Machine(lambda size: 100.0)  # the first is always run
    assert (slow.choose(4096).ended, slow.sizes) == ("time", [64])


def test_only_what_is_short_is_run_again():
    machine = Machine(lambda size: 1.01 * BRIEF / 64 if size == 64 else 0.9 * BRIEF / size)
    machine.choose(4096)
    assert [machine.sizes.count(size) for size in (64, 256, 1024, 4096)] == [1, 3, 3, 3]


@pytest.mark.parametrize(("free", "sizes"), [(1e6, [1, 4, 16]), (1999.0, [2, 8]), (1100.0, [1]), (1.0, [1])])
def test_what_is_tried_fits_in_half_of_the_free_memory(free, sizes):
    machine = Machine(lambda size: 1e-6 / size)
    choice = machine.choose(16, needs=(500.0, 60.0), free=free)
    assert sorted(set(machine.sizes)) == sizes
    assert choice.chunk == sizes[-1] and choice.ended == ("all" if free == 1e6 else "memory")
    assert sizes[-1] == 1 or 500 + sizes[-1] * 60 <= SHARE * free


def test_where_more_memory_is_taken_than_was_measured():
    machine = Machine(lambda size: 1e-6 / size, holds=300)
    choice = machine.choose(4096)
    assert (choice.chunk, choice.ended) == (256, "memory") and machine.sizes[-1] == 1024
    machine = Machine(lambda size: 1e-6, holds=20)  # not even the smallest
    with pytest.warns(UserWarning, match="memory ran out at 32, goes on with 16"):
        assert machine.choose(4096) == ChunkChoice(16, (), "memory")


@pytest.mark.parametrize(
    ("examples", "most"), [*itertools.product([1, 2, 5, 63, 64, 5000, 16384], [0.1, 1, 7, 1e3, 1e9])]
)
def test_sizes_ascend_from_few_to_all_that_fit(examples, most):
    sizes = sizes_to_try(examples, most)
    assert 1 <= len(sizes) <= 4 and sizes == sorted(set(sizes)) and sizes[0] >= 1
    assert sizes[-1] <= examples and (sizes[-1] <= most or sizes == [1])
    assert sizes[-1] == examples or sizes[-1] > most / 2 or sizes == [1]
    assert all(2 <= b / a <= 8 for a, b in itertools.pairwise(sizes))


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match="examples: got 0, expected at least 1"):
        choose_chunk(print, 0, CPU)


def test_another_error_passes():
    with pytest.raises(RuntimeError, match="shapes"):
        Machine(lambda size: 1.0, holds=0, error=RuntimeError("shapes")).choose(10)
    with pytest.raises(RuntimeError, match="shapes"):
        halving(Machine(lambda size: 1.0, holds=0, error=RuntimeError("shapes")), 10)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_halves_with_a_line_each(error):
    machine = Machine(lambda size: 1.0, holds=64, error=error)
    with pytest.warns(UserWarning) as said:
        assert halving(machine, 256) == (None, 64)
    assert machine.sizes == [256, 128, 64]
    assert [str(one.message).partition(" (")[0] for one in said] == [
        "chunk_size: memory ran out at 256, goes on with 128",
        "chunk_size: memory ran out at 128, goes on with 64",
    ]
    assert not any("\n" in str(one.message) for one in said)
    assert {one.filename for one in said} == {__file__}
    assert out_of_memory(error) and not out_of_memory(KeyError("out of memory"))


def test_one_example_that_is_too_many():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(MemoryError, match=r"chunk_size: got no memory for 1 example .*: use keep_graph=False"):
            halving(Machine(lambda size: 1.0, holds=0), 3)


def test_nothing_is_said_where_there_is_room():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert halving(lambda chunk: [chunk], 256) == ([256], 256)


def test_a_true_allocation_that_fails_is_halved():
    def run(chunk):
        return torch.empty(chunk * 2**46, dtype=torch.uint8).sum() if chunk > 1 else chunk

    with pytest.warns(UserWarning, match="can't allocate memory|not enough memory"):
        assert halving(run, 4) == (1, 1)


def test_what_filled_the_memory_is_let_go_before_the_next_try():
    held = []

    def run(chunk):
        gc.collect()
        assert all(reference() is None for reference in held)
        large = torch.zeros(chunk)
        held.append(weakref.ref(large))
        if chunk > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.warns(UserWarning):
        halving(run, 8)
    assert len(held) == 4


# --- memory


def test_bytes_of_what_is_held_at_once():
    outside = torch.zeros(1000)

    def run(size):
        first = torch.ones(size, 1000)
        second = first * 2
        del first
        third = second + outside
        views = third.view(-1)[:5], third.T, outside[:3]  # no memory of their own
        del second, third, views
        torch.ones(size, 100).add_(1)

    # fixed: `outside` alone is as large, and not made here.
    assert memory_of(run, 100) == Memory(0.0, 2 * 1000 * 4)
    assert memory_of(run, 3) == Memory(3 * 2 * 1000 * 4, 0.0)
    assert memory_of(lambda size: torch.ones(7), 100) == Memory(7 * 4, 0.0)
    assert memory_of(lambda size: None, 100) == Memory(0.0, 0.0)
    assert memory_of(lambda size: [torch.ones(10) for _ in range(size)], 100).each == 40  # not the same operations


def profiled(run, size):
    """The allocator's own peak, bytes."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run(size)
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


def test_memory_of_a_gradient_with_its_graph_and_a_product_against_the_allocator():
    net = nn.Sequential(nn.Linear(50, 200), nn.Tanh(), nn.Linear(200, 200), nn.GELU(), nn.Linear(200, 3))
    parameters = list(net.parameters())
    x = torch.randn(4096, 50)

    def run(size):
        loss = net(x[:size]).square().mean()
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        torch.autograd.grad(gradients, parameters, [torch.ones_like(p) for p in parameters])

    fixed, each = memory_of(run, 4096)
    assert fixed >= 2 * 4 * sum(p.numel() for p in parameters)  # gradients and vectors at least
    for size in (4, 64, 256, 4096):
        peak = profiled(run, size)
        assert 0.95 * peak < fixed + size * each < 1.6 * peak
    assert fixed + 4096 * each == pytest.approx(peak, rel=0.05)


def test_free_memory_of_the_cpu_is_the_machines():
    assert 0 < free_on(CPU) < 2**50


def test_a_true_net_gets_a_size_that_it_was_timed_at():
    net = nn.Linear(3, 1)
    x = torch.randn(300, 3)
    choice = choose_chunk(lambda size: torch.autograd.grad(net(x[:size]).sum(), net.weight), 300, CPU)
    assert choice.chunk in dict(choice.tried) and [size for size, _ in choice.tried] == [4, 16, 64, 300]
