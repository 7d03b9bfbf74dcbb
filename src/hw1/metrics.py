"""What metrics are called, in tables and in figures: a name and its label stand here alone. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SPLITS = ("train", "test")
QUANTITIES = LOSS, ACCURACY = ("loss", "accuracy")

# Whole-set values in evaluation mode.
METRICS = TRAIN_LOSS, TEST_LOSS, TRAIN_ACCURACY, TEST_ACCURACY = (
    *("train/loss", "test/loss"),
    *("train/accuracy", "test/accuracy"),
)
STEP_LOSS = "train_step/loss"  # of a training step, on its batch
GRADIENT_NORM = "gradient_norm"  # of a training step; `gradient_norm/<layer>` is a layer's
REACHED = "stopped_at_train_loss/reached"  # 1.0 where training came to the train loss at which it stops
PERPLEXITY = "perplexity"  # of tokens, exp of their loss: `train/perplexity`
GAPS = LOSS_GAP, ACCURACY_GAP = ("loss_gap", "accuracy_gap")  # between test and training set, computed by studies

# A column of a table of networks that were never trained: whose batch-norm statistics they were evaluated with.
STATISTICS, RECOMPUTED = "batch_norm_statistics", "of the training set, at each point"
STATISTICS_NOTE = "batch-norm statistics are computed anew on the training set at every point"

BATCH_SIZE, LEARNING_RATE = "dataset.batch_size", "optimizer.lr"
ADOPTED = "adopted.file"  # of weights that were trained elsewhere: what such runs differ in

OTHER_LOSS = "loss_function"  # a column of tables whose losses are in no nats: which one they are
_IN_NATS = (
    *("", "cross_entropy", "focal", "ClassWeights", "CrossEntropyLoss", "NLLLoss", "nll_loss", "BCEWithLogitsLoss"),
    "binary_cross_entropy_with_logits",
)

_LABELS = {
    STEP_LOSS: "loss of the batch",
    GRADIENT_NORM: "gradient norm",
    LOSS_GAP: "test loss minus train loss",
    ACCURACY_GAP: "train accuracy minus test accuracy",
    BATCH_SIZE: "batch size",
    LEARNING_RATE: "learning rate",
    ADOPTED: "weights",
    "depth": "hidden layers",
}


def label(name: str) -> str:
    """What a figure calls a metric or a setting.

    Example:
        >>> label("optimizer.lr"), label("optimizer.weight_decay"), label("test/loss")
        ('learning rate', 'weight decay', 'test loss')
    """
    return _LABELS.get(name, name.rpartition(".")[2].replace("_", " ").replace("/", " "))


def is_of_test_set(name: str) -> bool:
    """Whether a metric was taken of the test set, which nothing may be picked by.

    Example:
        >>> is_of_test_set("test/loss"), is_of_test_set("val/loss"), is_of_test_set("sensitivity/test")
        (True, False, True)
    """
    return "test" in name.split("/")


def not_in_nats(loss: Mapping[str, Any] | None) -> str:
    """What a loss is called whose values are no nats, as squared errors of classes are none; "" where they are.

    Args:
        loss: the setting; None for that of the data.

    Example:
        >>> not_in_nats(None), not_in_nats({"_target_": "hw1.losses.mse"})
        ('', 'mse')
    """
    name = str(loss["_target_"]).rpartition(".")[2] if loss else ""
    return "" if name in _IN_NATS else name


def unit(quantity: str, classes: bool, table: Iterable[str] = ()) -> str:
    """The unit of a loss or an accuracy.

    Args:
        quantity: loss or accuracy.
        classes: whether the targets are classes, whose own loss is a cross-entropy; any other has that of its targets.
        table: of what is shown, or its columns; those of another loss have the column `OTHER_LOSS`.

    Example:
        >>> unit("loss", classes=True), unit("loss", classes=False), unit("accuracy", classes=True)
        ('nats', '', '')
    """
    return "nats" if quantity == LOSS and classes and OTHER_LOSS not in table else ""


def noted(text: str, *notes: str) -> str:
    """A label with its unit and the like in brackets behind it; empty notes are left out.

    Example:
        >>> noted("loss", "nats", "log scale"), noted("accuracy", "")
        ('loss (nats, log scale)', 'accuracy')
    """
    kept = ", ".join(note for note in notes if note)
    return f"{text} ({kept})" if kept else text


def axis(name: str, *notes: str) -> str:
    """The label of an axis that shows a metric or a setting, with notes as in `noted`.

    Example:
        >>> axis("dataset.batch_size", "log scale")
        'batch size (log scale)'
    """
    return noted(label(name), *notes)
