"""What several processes would not train as one does is refused before anything trains, in one line."""

import random

import pytest
import torch

from composed import settings
from hw1.data.batches import OrderedBatches, Shares
from hw1.settings import ConfigError, run_key
from hw1.settings.processes import processes, processes_here, strategy_of
from hw1.training import build

SMALL = (
    *("dataset=digits", "dataset.train_size=100", "dataset.batch_size=16", "logger=none", "callbacks=none"),
    *("trainer.progress=false", "trainer.max_epochs=2"),
)
DENSE = "model=mlp model.hidden=[6]"

REFUSED = {
    f"trainer=ddp {DENSE} replicas=2": r"replicas: got 2 with trainer=ddp, expected 1: .*seed=0,1,2",
    f"trainer=ddp {DENSE} objective.minimise=squared_gradient_norm":
        r"objective\.minimise: got squared_gradient_norm with trainer=ddp, expected loss: .*not the mean",
    "trainer=ddp model=resnet model.channels=2 model.blocks=[1]": r"model: got batch-norm \(.*bn.*\) with trainer=ddp",
    f"trainer=ddp {DENSE} +trainer.sync_batchnorm=true":
        r"trainer\.sync_batchnorm: got True with accelerator=cpu, expected false: .*GPUs",
    f"trainer=cpu {DENSE} +trainer.sync_batchnorm=true": r"trainer\.sync_batchnorm: got True, .*one process",
    f"trainer=ddp {DENSE} trainer.strategy=fsdp": r"trainer\.strategy: got fsdp, which divides a network .*whole",
    f"trainer=ddp {DENSE} trainer.strategy=deepspeed_stage_2": r"trainer\.strategy: got deepspeed_stage_2, .*whole",
    f"trainer=ddp {DENSE} trainer.strategy=ddp_spawn": r"trainer\.strategy: got ddp_spawn, .*expected ddp",
    f"trainer=cpu {DENSE} +trainer.strategy._target_=lightning.pytorch.strategies.FSDPStrategy":
        r"trainer\.strategy: got FSDPStrategy, whose processes hw1 does not start; expected ddp",
    f"trainer=cpu {DENSE} trainer.devices=2": r"trainer\.devices: got 2, expected 1, or trainer=ddp",
    f"trainer=ddp {DENSE} trainer.devices=auto": r"trainer\.devices: got 'auto', expected a number",
    f"trainer=ddp {DENSE} trainer.devices=0": r"trainer\.devices: got 0, expected a number",
    f"trainer=ddp {DENSE} trainer.accelerator=auto": r"trainer\.accelerator: got 'auto' with trainer=ddp, expected cpu",
    f"trainer=ddp {DENSE} trainer.num_nodes=0": r"trainer\.num_nodes: got 0, expected a positive integer",
    f"trainer=ddp {DENSE} dataset.eval_batch_size=1 metrics=[f1]": r"metrics: got f1 where batches of 1 .* 2 processes",
    f"trainer=ddp {DENSE} +task._target_=my_tasks.Gan": r"task: got my_tasks\.Gan with trainer=ddp, .*by hand",
}  # fmt: skip


DRAWN = random.Random(0).sample(list(REFUSED), 3)


@pytest.mark.parametrize("words", [w if w in DRAWN else pytest.param(w, marks=pytest.mark.slow) for w in REFUSED])
def test_it_is_refused_in_one_line(words, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend("tests/training")
    with pytest.raises(ConfigError, match=REFUSED[words]) as refused:
        build.validate(settings(*SMALL, *words.split(" ")), tmp_path)
    assert "\n" not in str(refused.value)


def test_the_number_of_processes_is_part_of_the_key_and_a_run_of_one_keeps_its_own():
    keys = {}
    for words in ("trainer=cpu", "trainer=ddp", "trainer=ddp trainer.devices=3"):
        keys[words] = settings(*SMALL, *DENSE.split(" "), *words.split(" ")).key
    assert len(set(keys.values())) == 3
    plain = settings(*SMALL, *DENSE.split(" "), "trainer=cpu").plain
    assert "strategy" not in plain["trainer"]
    assert run_key(plain) == keys["trainer=cpu"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "accelerator", "here", "all_of_them"),
    [("ddp", "cpu", 2, 2), ("ddp_gpu", "gpu", 2, 2), ("ddp_multinode", "gpu", 4, 8)],
)
def test_presets_compose(preset, accelerator, here, all_of_them):
    run = settings(*SMALL, *DENSE.split(" "), f"trainer={preset}")
    assert (strategy_of(run), run.trainer["accelerator"]) == ("ddp", accelerator)
    assert (processes_here(run), processes(run)) == (here, all_of_them)
    assert processes(settings(*SMALL, *DENSE.split(" "), "trainer=gpu")) == 1


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [1, 2, 5, 16, 17])
def test_shares_are_the_batches_and_differ_by_one_at_most(size, world):
    batches = list(OrderedBatches(size, 5))
    shares = [list(Shares(OrderedBatches(size, 5), rank, world)) for rank in range(world)]
    for number, batch in enumerate(batches):
        own = [range(size)[share[number]] for share in shares]
        assert [row for rows in own for row in rows] == list(range(size))[batch]
        assert max(map(len, own)) - min(map(len, own)) <= 1


class Given:
    """Batches that are tensors of rows."""

    def __len__(self):
        return 1

    def __iter__(self):
        yield torch.tensor([4, 1, 3, 0, 2])


def test_rows_in_another_order_stay_in_it():
    assert [next(iter(Shares(Given(), rank, 2))).tolist() for rank in (0, 1)] == [[4, 1, 3], [0, 2]]
