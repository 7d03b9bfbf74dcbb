"""One DataModule for every source of examples."""

from __future__ import annotations

import lightning
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from hw1.data.batches import ALL, Batch, EpochBatches, EvaluationBatches, Inputs, Share, evaluation_loader, shared
from hw1.data.constant import constant_loss
from hw1.data.drawn import Transform, training_loader, try_on
from hw1.data.identities import identity_of
from hw1.data.protocol import ExampleSet, ExampleSource, TrainTest
from hw1.data.sets import Held, Streamed, carved
from hw1.kinds import Kind, Loss, constant_metrics, loss_of

_latest: dict[tuple[type, str], TrainTest] = {}


class DataModule(lightning.LightningDataModule):
    """Batches of the examples of a source: whole in memory, or, of a source with `datasets()`, read as they are needed.

    In this order: a validation set is carved from the training set, `train_size` examples are kept of the rest, a part
    of their labels is shuffled. The first two are stratified by class; validation and test labels stay true.

    Args:
        examples: where they come from.
        batch_size: training examples a step; None for all (full batch), which are then passed on as they are,
            unshuffled and uncopied.
        train_size: number of training examples; None for all.
        corruption: fraction in [0, 1] of the training labels that is shuffled; classification only.
        val_fraction: fraction in [0, 1) of the training set that becomes the validation set.
        seed: of these choices, and of the order of the training batches unless `order_seeds` are set.
        workers: processes that load batches, which change no result; 0 (in this process) is fastest for data in memory.
        eval_batch_size: examples a batch where whole sets are evaluated; it changes memory and speed, not results.

    Attributes:
        order_seeds: seeds of the order of training batches, and of what is random about their examples, one a member;
            set them before training begins. With several of them every batch has a leading dimension: [R, B, ...], or
            [1, B, ...] where all members share it.
        same_batches: whether every epoch has the order of the first.
        behind: (epoch, batches of it) that a training which is resumed in the middle of that epoch has behind it.
        share: (rank, number of processes) where several train one network: of every batch that is drawn, the loaders
            then give that part. Set it before training begins.
        evaluates_share: whether that goes for evaluations too, or each process evaluates whole sets.
        transform: of the inputs of training batches, one by one; nothing else sees it. None for none.
        definition: under which the identity of `examples` is remembered, with their files; None for not at all.
        eval_names: names of the sets that `val_dataloader` and `test_dataloader` evaluate, in their order.
        kind: "classes", "values", "tokens", "binary" or "counts": of `examples`, as the following.
        loss: (outputs [B, ...], targets [B, ...], reduction="mean") -> mean loss [].
        in_shape: shape of one input, without the batch; known, as the following, before any example is read.
        out_features: classes, or the length of a target.
        name: of the data.
        source: where they come from.

    Raises:
        ValueError: a value is out of range; the message begins with its name. `train_size` is compared with the number
            of examples on `setup`.
    """

    def __init__(
        self,
        examples: ExampleSource,
        *,
        batch_size: int | None,
        train_size: int | None,
        corruption: float,
        val_fraction: float,
        seed: int,
        workers: int,
        eval_batch_size: int,
    ) -> None:
        super().__init__()
        self.kind, self.loss = _kind_and_loss(examples)
        positive, count = "a positive integer", "an integer of at least 0"
        good = batch_size is None or _count(batch_size, 1)
        _check("batch_size", batch_size, good, f"{positive} or null (the full batch)")
        good = train_size is None or _count(train_size, 1)
        _check("train_size", train_size, good, f"{positive} or null (all)")
        _check("corruption", corruption, _fraction(corruption), "a fraction from 0 to 1")
        _check(
            "corruption",
            corruption,
            not corruption or self.has_classes,
            f"0: {examples.name} has no classes",
        )
        _check(
            "val_fraction",
            val_fraction,
            _fraction(val_fraction) and val_fraction < 1,
            "a fraction from 0 to less than 1",
        )
        _check("seed", seed, _count(seed, 0), count)
        _check("workers", workers, _count(workers, 0), count)
        _check("eval_batch_size", eval_batch_size, _count(eval_batch_size, 1), positive)
        self.examples = examples
        self.batch_size, self.train_size, self.eval_batch_size = batch_size, train_size, eval_batch_size
        self.corruption, self.val_fraction = corruption, val_fraction
        self.seed, self.order_seeds = seed, [seed]
        self.transform: Transform | None = None
        self.same_batches, self.behind = False, (0, 0)
        self.share: Share = ALL
        self.evaluates_share = True
        self.workers = workers
        self.name = examples.name
        self.in_shape, self.out_features = examples.in_shape, examples.out_features
        self.eval_names = ("train", "val", "test") if val_fraction else ("train", "test")
        self.definition: str | None = None
        self._identity: str | None = None
        self._sets: dict[str, ExampleSet] = {}

    @property
    def has_classes(self) -> bool:
        """Whether there is one class an example."""
        return self.kind == "classes"

    @property
    def source(self) -> str:
        """Which variant of the data is read; what "auto" became is known once the data are prepared."""
        return self.examples.source

    def identity(self) -> str:
        """Hex SHA-256 of what is read, or was, once it was: what becomes of the files later is no part of it."""
        if self._identity is None:
            self._identity = identity_of(self.examples, self.definition)
        return self._identity

    def prepare_data(self) -> None:
        """Download what is missing."""
        self.examples.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Load the examples, once, and make the sets from them.

        Raises:
            ValueError: `train_size` or `val_fraction` does not fit the number of examples.
        """
        if not self._sets:
            train, test = self._read()
            made = carved(train, self.val_fraction, self.train_size, self.corruption, self.seed)
            self._sets = {**made, "test": test}

    @property
    def streamed(self) -> bool:
        """Whether examples are read as they are needed."""
        return bool(getattr(self.examples, "streamed", not hasattr(self.examples, "load")))

    def _read(self) -> tuple[ExampleSet, ExampleSet]:
        """The training and the test set, as the source has them."""
        if self.streamed:
            train, test = self.examples.datasets()  # type: ignore[attr-defined]  # what is streamed has them
            return Streamed(train, self.workers), Streamed(test, self.workers)
        whole = _load(self.examples, self.identity())
        return Held(whole.train_x, whole.train_y), Held(whole.test_x, whole.test_y)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples in each of the `eval_names`."""
        return {name: len(self._set(name)) for name in self.eval_names}

    def targets(self, split: str) -> Tensor:
        """Targets [N, ...] of one of the `eval_names`: of "train" after `train_size` and `corruption`."""
        return self._set(split).targets

    def examples_of(self, split: str, first: int | None = None, rows: Tensor | None = None) -> Batch:
        """Inputs and targets of one of the `eval_names` in memory, as evaluations see them.

        Args:
            split: "train", "val" or "test".
            first: so many, at most; None for all, of data that are in memory.
            rows: the numbers of those that are wanted, [M], instead.

        Raises:
            ValueError: all of what memory may not hold.
        """
        own = self._set(split)
        if rows is not None:
            return own.take(rows)
        if first is None and self.streamed:
            raise ValueError(f"first: got None for {self.name}, which is streamed, expected a number, or use batches")
        return own.take(slice(0, len(own) if first is None else first))

    def batches(self, split: str) -> list[Batch] | EvaluationBatches:
        """All of one of the `eval_names` as a risk takes it: one batch; of a stream many, which can be read again."""
        if self.streamed:
            return EvaluationBatches(self._set(split), self.eval_batch_size, self.workers)
        return [self.examples_of(split)]

    def inputs(self, split: str) -> Tensor | Inputs:
        """The inputs of `batches`: [N, ...], or, of a stream, batches of them that can be read again."""
        batches = self.batches(split)
        return Inputs(batches) if isinstance(batches, EvaluationBatches) else batches[0][0]

    @property
    def train_tensors(self) -> Batch:
        """Training inputs [N, ...] and targets [N, ...], after `train_size` and `corruption`; of data in memory."""
        return self.examples_of("train")

    @property
    def val_tensors(self) -> Batch | None:
        """Validation inputs and targets; None if there is no validation set."""
        return self.examples_of("val") if self.val_fraction else None

    @property
    def test_tensors(self) -> Batch:
        """Test inputs [M, ...] and true targets [M, ...]."""
        return self.examples_of("test")

    def constant_metrics(self) -> dict[str, float]:
        """Train loss, and accuracy, of the best constant prediction.

        Of a loss other than that of the data's kind, `other_loss`: how far below it a network can come is not known.
        """
        targets = self.targets("train")
        found = constant_metrics(self.kind, targets)
        if self.loss is loss_of(self.kind):
            return found
        loss = constant_loss(self.loss, self.kind, targets, self.out_features)
        others = {name: value for name, value in found.items() if name != "loss"}
        return others if loss is None else {**others, "other_loss": loss}

    def _set(self, name: str) -> ExampleSet:
        self.setup()
        return self._sets[name]

    def try_transform(self) -> None:
        """Transform the first training input.

        Raises:
            ValueError: the transform refuses it, or makes something of another shape or type of it.
        """
        if self.transform is not None:
            try_on(self.transform, self.examples_of("train", first=1)[0][0])

    def train_dataloader(self) -> DataLoader[Batch]:
        """Training batches [x, y] of `batch_size`, reordered each epoch; the last one may be smaller."""
        batches = EpochBatches(self.sizes["train"], self.batch_size, self.order_seeds, self._epoch, self._behind)
        mine = shared(batches, self.share)
        return training_loader(self._set("train"), self.transform, mine, self.order_seeds, self.workers)

    def _epoch(self) -> int:
        return 0 if self.same_batches else self._present()

    def _behind(self) -> int:
        epoch, batches = self.behind
        return batches if self._present() == epoch else 0

    def _present(self) -> int:
        """The epoch that trains, or begins to."""
        # Not trainer.current_epoch: Lightning builds the resumed epoch's iterator (whose workers read ahead at once)
        # while that still counts the epoch before.
        if self.trainer is None:
            return 0
        # Lightning annotates the base of what it makes.
        processed: int = self.trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        return processed

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """The whole of each of the `eval_names`, in order."""
        return self._evaluation()

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """The whole of each of the `eval_names`, in order."""
        return self._evaluation()

    def _evaluation(self) -> list[DataLoader[Batch]]:
        several = len(self.order_seeds) > 1
        sets = (self._set(name) for name in self.eval_names)
        share = self.share if self.evaluates_share else ALL
        return [evaluation_loader(own, self.eval_batch_size, self.workers, several, share) for own in sets]


def _kind_and_loss(examples: ExampleSource) -> tuple[Kind, Loss]:
    own: Loss | None = getattr(examples, "loss", None)
    kind: Kind = getattr(examples, "kind", "classes" if own is cross_entropy else "values")
    usual = loss_of(kind)  # refuses a kind that is none
    return kind, own or usual


def _load(examples: ExampleSource, identity: str) -> TrainTest:
    """Load `examples`, or take them from the run before: a sweep in one process reads its data once."""
    key = type(examples), identity
    if key not in _latest:
        _latest.clear()  # keep one set: CIFAR-10 is 0.7 GB
        _latest[key] = examples.load()
    return _latest[key]


def _count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _fraction(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _check(name: str, value: object, good: bool, expected: str) -> None:
    if not good:
        raise ValueError(f"{name}: got {value!r}, expected {expected}")
