"""Lightning's DDP strategy for batches that are divided among processes: the step is that of the whole batch.

Torch's DistributedDataParallel averages the gradients of processes, which is the whole batch's gradient only where all
have equally much. Here each loss is weighed by what counts in it, and gradients are added up once a step, before they
are looked at, clipped or used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from hw1.data import DataModule
from hw1.data.batches import Share
from hw1.training.loss import loss_weight
from hw1.training.task import Task

_BUCKET = 2**25  # elements that are added up at a time: what is flat besides the gradients themselves


class Place(ClusterEnvironment):
    """Which process this is, of how many: as it was told, whatever a scheduler's variables say.

    Args:
        share: (rank, number of processes).
        here: number of processes on each machine.
    """

    creates_processes_externally = True
    main_address, main_port = "", 0  # processes meet by a store that they are given

    def __init__(self, share: Share, here: int) -> None:
        super().__init__()
        (self._rank, self._world), self._here = share, here

    @staticmethod
    def detect() -> bool:
        """Never: it is given."""
        return False

    def world_size(self) -> int:
        """The number of processes."""
        return self._world

    def set_world_size(self, size: int) -> None:
        """It is known."""

    def global_rank(self) -> int:
        """Of all."""
        return self._rank

    def set_global_rank(self, rank: int) -> None:
        """It is known."""

    def local_rank(self) -> int:
        """On this machine."""
        return self._rank % self._here

    def node_rank(self) -> int:
        """Of the machine."""
        return self._rank // self._here


class SharedBatches(DDPStrategy):
    """Trains one network in several processes as one would train it alone, but for the order in which sums are taken.

    Every process draws its share of every batch (`DataModule.share`), which may be empty.

    Args:
        place: of this process.
        join: (backend, device) -> None: makes the process group; called once, when training begins. None where nothing
            is trained.
        watch: raises where another process has failed; called at every step.
    """

    strategy_name = "hw1_shared_batches"

    def __init__(
        self,
        place: Place,
        join: Callable[[str, torch.device], None] | None = None,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(cluster_environment=place)
        self._join, self._watch = join, watch
        self._adds_up = True
        self._data: DataModule | None = None

    def _configure_launcher(self) -> None:
        """None: the other processes know their run from the one that started them."""

    def setup_distributed(self) -> None:
        """Meet the others, once."""
        self.set_world_ranks()
        if not dist.is_initialized():
            assert self._join is not None
            self._join(self._get_process_group_backend(), self.root_device)

    def setup(self, trainer: lightning.Trainer) -> None:
        """Know the data, by whose kind a loss is weighed."""
        self._data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without saying so
        super().setup(trainer)

    def configure_ddp(self) -> None:
        """Nothing is wrapped: the processes have built one network from one seed or checkpoint."""

    def barrier(self, name: str | None = None, *args: Any, **kwargs: Any) -> None:
        """Wait for the others; not for a checkpoint, which the first process writes when it sees fit."""
        if name != "Trainer.save_checkpoint":
            super().barrier(name, *args, **kwargs)

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Gradients are gathered further: they are added up at the end of the step."""
        self._adds_up = False
        try:
            yield
        finally:
            self._adds_up = True

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """The step on this process's share: its loss, weighed so that the sum over processes is the whole batch's mean.

        `losses`, for logging, are those of the whole batch.
        """
        self._watch()
        module = self.lightning_module
        assert module is not None
        assert self._data is not None
        task = Task.of(module)
        weight = loss_weight(task.loss, self._data.kind, args[0][1])
        if weight:
            with _logging_refused(module, unless=module is task):
                found = super().training_step(*args, **kwargs)
        else:
            found = self._without_examples(task.net, args[0][0])
        if not isinstance(found, Mapping) or "losses" not in found:
            raise RuntimeError(f"task: {type(module).__name__}.training_step returned no loss; expected one a batch")
        means = [found["loss"].detach().reshape(1), found["losses"].reshape(-1)]  # those of an optimizer's first look
        own = torch.cat(means).double() * weight if weight else torch.zeros(2)
        sums = torch.cat([own.cpu(), torch.tensor([float(weight)])]).double().to(self.root_device)
        dist.all_reduce(sums)
        loss, losses = (sums[:-1] / sums[-1]).to(found["loss"].dtype).tensor_split([1])
        mine = found["loss"] * (weight / sums[-1]).to(found["loss"].dtype)
        # Its gradient is this share's, its value the whole batch's, bit by bit: an optimizer may decide by it (LBFGS).
        return {**found, "loss": loss.squeeze() + (mine - mine.detach()), "losses": losses}

    def _without_examples(self, net: nn.Module, x: Tensor) -> dict[str, Tensor]:
        """What a step gives that has nothing to learn from: no gradient, but its part in what the layers add up."""
        loss = torch.zeros((), device=self.root_device, requires_grad=True)
        if any(isinstance(layer, nn.SyncBatchNorm) for layer in net.modules()):
            with self.precision_plugin.train_step_context():
                loss = net(x).sum() * 0
        return {"loss": loss, "losses": torch.zeros(1, device=self.root_device)}

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """As Lightning's, unless another process has failed."""
        self._watch()
        return super().validation_step(*args, **kwargs)

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        """As Lightning's, unless another process has failed."""
        self._watch()
        return super().test_step(*args, **kwargs)

    def post_backward(self, closure_loss: Tensor) -> None:
        """The gradients of the step are there: add them up over processes, if the step ends here."""
        if self._adds_up:
            assert self.lightning_module is not None
            add_up([p for p in self.lightning_module.parameters() if p.requires_grad])


@torch.no_grad()
def add_up(parameters: list[nn.Parameter]) -> None:
    """Replace each gradient by its sum over all processes, in which one that is None counts as 0.

    One that no process has stays None: an optimizer leaves such a parameter alone, also its weight decay.

    Raises:
        ValueError: a gradient is sparse.
    """
    for group in _buckets(parameters):
        grads = [parameter.grad for parameter in group]
        if any(grad is not None and grad.is_sparse for grad in grads):
            raise ValueError("model: got a layer with sparse gradients, expected dense ones with trainer=ddp")
        parts = [torch.zeros_like(p) if grad is None else grad for p, grad in zip(group, grads, strict=True)]
        there = torch.tensor([grad is not None for grad in grads]).to(group[0])
        flat = torch.cat([*(part.reshape(-1) for part in parts), there])
        dist.all_reduce(flat)
        *sums, there = flat.split([*(part.numel() for part in parts), len(group)])
        # Asked only where it matters: on a GPU the answer makes the host wait.
        counts = there.tolist() if any(grad is None for grad in grads) else [1.0] * len(group)
        for parameter, part, total, count in zip(group, parts, sums, counts, strict=True):
            if count:
                parameter.grad = part.copy_(total.view_as(part))


def _buckets(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters of one type, on one device, of not too many elements together; the same in every process."""
    kinds = defaultdict(list)
    for parameter in parameters:
        kinds[parameter.dtype, parameter.device].append(parameter)
    for group in kinds.values():
        bucket: list[nn.Parameter] = []
        for parameter in group:
            if bucket and sum(p.numel() for p in bucket) + parameter.numel() > _BUCKET:
                yield bucket
                bucket = []
            bucket.append(parameter)
        yield bucket


@contextmanager
def _logging_refused(module: lightning.LightningModule, unless: bool) -> Iterator[None]:
    """Inside, a user's module logs nothing: it sees a share of the batch, and what it would log is of that alone."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError(
            f"task: {type(module).__name__} logs in its training_step, where each process sees its share of a batch; "
            "expected that in validation_step, or trainer=cpu or gpu: train_step/loss is that of whole batches"
        )

    if not unless:
        module.log = module.log_dict = refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        if not unless:
            del module.log, module.log_dict
