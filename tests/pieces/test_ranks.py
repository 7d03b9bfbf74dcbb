"""A product that is split among processes of torch.distributed: the bits of one process."""

import multiprocessing
import os
import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

from hw1.curvature import (
    EmpiricalRisk,
    GaussNewton,
    Hessian,
    extreme_eigenpairs,
    hutchinson_trace,
    hutchpp_trace,
    spectral_density,
)

EXAMPLES, CHUNK = 43, 5  # nine chunks, the last of three examples


def made(dtype=torch.float32, examples=EXAMPLES):
    """(network, batches) that are the same in every process; two batches, the second ragged."""
    draw = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw).to(dtype)
    x = torch.randn(examples, 4, generator=draw).to(dtype)
    y = torch.randint(0, 3, (examples,), generator=draw)
    return net, [(x[:25], y[:25]), (x[25:], y[25:])] if examples > 25 else [(x, y)]


def numbers(group, dtype=torch.float32, examples=EXAMPLES, keep_graph=True):
    """Everything that is computed of a risk, by name; and of how many chunks it keeps the graph."""
    net, batches = made(dtype, examples)
    loss = nn.functional.cross_entropy
    risk = EmpiricalRisk(net, loss, batches, chunk_size=CHUNK, keep_graph=keep_graph, group=group)
    theta, hessian = risk.theta, Hessian(risk, risk.theta)
    block = torch.randn(risk.space.size, 3, generator=torch.Generator().manual_seed(1)).to(dtype)

    def randomness():
        return torch.Generator().manual_seed(2)

    density = spectral_density(hessian, probes=2, steps=6, generator=randomness())
    found = {
        "value": risk(theta),
        "gradient": risk.gradient(theta),
        "product": risk.hvp(theta, block[:, 0]),
        "again": risk.hvp(theta, block[:, 1]),  # of what was kept
        "block": risk.hvp(theta, block),
        "gauss_newton": GaussNewton(risk, theta).matvec(block),
        "trace": torch.tensor(hutchinson_trace(hessian, probes=3, generator=randomness()).value),
        "hutchpp": torch.tensor(hutchpp_trace(hessian, products=9, generator=randomness()).value),
        "largest": extreme_eigenpairs(hessian, 1, generator=randomness()).values,
        "density": torch.stack([density.nodes, density.weights]),
    }
    kept = [product for _, products in risk._kept.values() for product in products]
    return found, sum(product is not None for product in kept)


def member(rank, size, folder, settings):
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(str(Path(folder) / "store"), size)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=size)
    try:
        torch.save(numbers(torch.distributed.group.WORLD, **settings), Path(folder) / f"{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


def shared(size, **settings):
    """What each of `size` processes has computed."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    context = multiprocessing.get_context("fork")  # torch is imported already
    with tempfile.TemporaryDirectory() as folder:
        processes = [context.Process(target=member, args=(rank, size, folder, settings)) for rank in range(size)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
            if process.exitcode is None:
                process.kill()
        assert [process.exitcode for process in processes] == [0] * size
        return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(size)]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # bits depend on it
    yield
    torch.set_num_threads(before)


CASES = [(3, {}), (2, {"keep_graph": False}), (2, {"examples": 4}), (4, {"examples": 25})]


def check(size, settings):
    """Every process against one, and what float64 gives against plain autograd of the mean loss over all examples."""
    alone, all_kept = numbers(None, **settings)
    together = shared(size, **settings)
    for found, _ in together:
        assert found.keys() == alone.keys()
        assert [name for name in alone if not torch.equal(found[name], alone[name])] == []
    assert sum(kept for _, kept in together) == all_kept  # each chunk's is with one of them
    return alone


def test_two_processes_have_the_bits_of_one_and_these_are_right():
    net, batches = made(torch.float64)
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    names = dict(net.named_parameters())
    sizes = [parameter.numel() for parameter in names.values()]

    def loss(theta):
        parts = zip(names.items(), theta.split(sizes), strict=True)
        tensors = {name: part.view_as(parameter) for (name, parameter), part in parts}
        return nn.functional.cross_entropy(torch.func.functional_call(net, tensors, (x,)), y)

    theta = torch.cat([parameter.detach().flatten() for parameter in names.values()])
    block = torch.randn(len(theta), 3, generator=torch.Generator().manual_seed(1)).double()
    expected = torch.autograd.functional.hessian(loss, theta) @ block
    found = check(2, {"dtype": torch.float64})
    assert (found["block"] - expected).norm() <= 1e-12 * expected.norm()


@pytest.mark.slow
@pytest.mark.parametrize(("size", "settings"), CASES)
def test_every_process_has_the_bits_of_one(size, settings):
    check(size, settings)


def test_a_chunk_that_each_would_choose_for_itself_is_refused():
    net, batches = made()
    group = torch.distributed.ProcessGroup(0, 1)
    with pytest.raises(ValueError, match=r"^chunk_size: got auto beside group, expected a number: "):
        EmpiricalRisk(net, nn.functional.cross_entropy, batches, chunk_size="auto", group=group)
