"""chunk_size="auto": chosen once, recorded, and given up step by step where memory runs out."""

import pytest
import torch

import zoo
from hw1.curvature import EmpiricalRisk
from hw1.risk import empirical
from hw1.risk.chunk_size import ChunkChoice

torch.set_num_threads(1)


def of_one_batch(**options):
    one = zoo.case("tanh")
    return EmpiricalRisk(one.net, one.loss, [(one.x, one.y)], **options), one


def test_the_choice_is_recorded_and_gives_the_same_bits_again():
    risk, one = of_one_batch(chunk_size="auto")
    theta = one.theta()
    assert risk.chunk_choice is None
    product = risk.hvp(theta, theta)
    choice = risk.chunk_choice
    assert choice is not None and risk.chunk_size == choice.chunk <= zoo.N and choice.tried
    again, _ = of_one_batch(chunk_size=risk.chunk_size)
    assert torch.equal(again.hvp(theta, theta), product)
    torch.testing.assert_close(product, one.hessian(theta) @ theta)


def test_where_memory_runs_out_the_kept_graph_goes_first_and_then_chunks_are_halved(monkeypatch):
    monkeypatch.setattr(empirical, "choose_chunk", lambda *_: ChunkChoice(16, (), "all"))
    risk, one = of_one_batch(chunk_size="auto")
    theta = one.theta()
    make = risk._hessian_chunk

    def hungry(point, batch, weight):
        if weight > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return make(point, batch, weight)

    risk.gradient(theta)  # the checks are done
    risk.hvp(theta, theta)
    monkeypatch.setattr(risk, "_hessian_chunk", hungry)
    with pytest.warns(UserWarning) as said:
        product = risk.hvp(theta + 1, theta)
    lines = [str(one.message) for one in said]
    assert lines[0].startswith("keep_graph: memory ran out")
    assert [line.partition(" (")[0] for line in lines[1:]] == [
        "chunk_size: memory ran out at 16, goes on with 8", "chunk_size: memory ran out at 8, goes on with 4",
    ]  # fmt: skip
    assert risk.chunk_size == 4
    torch.testing.assert_close(product, one.hessian(theta + 1) @ theta)


def test_another_error_is_no_lack_of_memory(monkeypatch):
    monkeypatch.setattr(empirical, "choose_chunk", lambda *_: ChunkChoice(16, (), "all"))
    risk, one = of_one_batch(chunk_size="auto")
    risk.hvp(one.theta(), one.theta())

    def broken(*_):
        raise RuntimeError("something else")

    monkeypatch.setattr(risk, "_hessian_chunk", broken)
    with pytest.raises(RuntimeError, match=r"^something else$"):
        risk.hvp(one.theta() + 1, one.theta())
