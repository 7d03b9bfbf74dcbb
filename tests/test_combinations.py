"""What people change between two papers, several things at once.

It trains, and its saved weights reproduce what was recorded, or it is refused in one line before anything trains. Typed
as a user would; losses by formulas that stand here.
"""

import os
import random
from pathlib import Path

import lightning
import pytest
import torch
from torch.nn import functional as F

from hw1.runs import Run, Sweep

DRAWN, SAMPLE = 60, 2

DATA = {
    "digits": ("dataset=digits",),
    "mnist": ("dataset=mnist", "dataset.source=bundled"),
    "function": ("dataset=function",),
    "characters": ("dataset=characters", "dataset.length=8"),
    "modular": ("dataset=modular", "dataset.p=13"),
    "table": ("dataset=table", "dataset.file={folder}/flowers.csv", "dataset.target=kind"),
    "numbers": ("dataset=table", "dataset.file={folder}/flowers.csv", "dataset.target=height", "dataset.features=[a,b]",
                "dataset.kind=values"),
    "arrays": ("dataset=arrays", *(f"dataset.{name}={{folder}}/all.npz" for name in
                                   ("train_x", "train_y", "test_x", "test_y"))),
}  # fmt: skip
IMAGES, TOKENS, VALUES = ("digits", "mnist", "arrays"), ("characters", "modular"), ("function", "numbers")
MODELS = {
    "mlp": ("model=mlp", "model.hidden=[8]"),
    "dropout": ("model=mlp", "model.hidden=[8]", "model.dropout=0.3"),
    "cnn": ("model=cnn", "model.layers=['c3(3)',bn,p2,8]"),
    "resnet": ("model=resnet", "model.blocks=[1,1]", "model.channels=4"),
    "torchvision": ("model={_target_: torchvision.models.shufflenet_v2_x0_5, num_classes: 10}",),
    "gpt": ("model=gpt", "model.size=8", "model.heads=2", "model.blocks=1"),
    "function": (f"model={{_target_: {__name__}.flat, features: 6}}",),
}
SUITED = {
    **{model: [data for data in DATA if data not in TOKENS] for model in ("mlp", "dropout", "function")},
    **{model: list(IMAGES) for model in ("cnn", "resnet")},
    **{"torchvision": [], "gpt": list(TOKENS)},  # shufflenet takes three colours
}
PAIRS = [(data, model) for model, fitting in SUITED.items() for data in fitting]
UNSUITED = {"digits": "torchvision", "mnist": "gpt", "characters": "mlp", "function": "cnn", "table": "resnet"}
PAIRS += list(UNSUITED.items())
LOSSES = (
    "",
    "loss=label_smoothing",
    "loss=focal",
    "loss=mse",
    "loss=mae",
    f"loss={{_target_: {__name__}.squared_log}}",
)
OPTIMIZERS = (
    ("optimizer=adam",),
    ("optimizer=sgd_nesterov", "optimizer.no_decay=[norm,bias]"),
    ("optimizer=muon",),
    ("optimizer=sam",),
    ("optimizer=lbfgs", "dataset.batch_size=null"),
    ("optimizer._target_=torch.optim.RMSprop",),
)
SCHEDULES = ("", "scheduler=cosine_warmup", "scheduler=onecycle", "scheduler=step scheduler.step_size=1",
             "scheduler=plateau scheduler.monitor=train/loss", "scheduler=sequential")  # fmt: skip
FLAGS = {
    "": (),
    "steps": ("trainer.max_epochs=-1", "+trainer.max_steps=3"),
    "accumulated": ("+trainer.accumulate_grad_batches=2",),
    "clipped": ("+trainer.gradient_clip_val=0.5",),
    "bf16": ("trainer.precision=bf16-mixed",),
    "float64": ("trainer.precision=64-true",),
    "swa": ("callbacks=[default,swa]", "callbacks.swa.swa_lrs=0.01", "callbacks.swa.swa_epoch_start=1"),
    "ema": ("callbacks=[default,ema]",),
    "best": ("callbacks=[default,best_checkpoint]",),
    "stopped": ("callbacks=[default,early_stopping]", "callbacks.early_stopping.monitor=train/loss"),
    "overfit": ("+trainer.overfit_batches=1",),
    "augmented": ("transform=noise",),
    "replicas": ("replicas=2",),
    "validated": ("dataset.val_fraction=0.25",),
}


def flat(in_shape, out_features, features):
    """A factory function of a user's."""
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(torch.Size(in_shape).numel(), features),
        torch.nn.BatchNorm1d(features),
        torch.nn.ReLU(),
        torch.nn.Linear(features, out_features),
    )


def squared_log(outputs, targets):
    """A user's loss of classes."""
    return F.cross_entropy(outputs, targets, reduction="none").square().mean()


def combinations(number):
    """Drawn so that every value of every axis comes."""
    decks = [deck(axis, seed) for seed, axis in enumerate((PAIRS, LOSSES, OPTIMIZERS, SCHEDULES, FLAGS))]
    return [(*next(decks[0]), *(next(own) for own in decks[1:])) for _ in range(number)]


def deck(axis, seed):
    draw = random.Random(seed)
    while True:
        yield from draw.sample(list(axis), len(axis))


def named(combination):
    data, model, loss, optimizer, schedule, flag = combination
    parts = [data, model, loss, optimizer[0], schedule.partition(" ")[0], flag]
    return " ".join(part.rpartition(".")[2].strip("}") if "{" in part else part for part in parts if part)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table and arrays of a user's."""
    import numpy as np

    made = tmp_path_factory.mktemp("data")
    numbers = np.random.default_rng(0)
    rows = [f"{x:.3f},{y:.3f},{x + y:.3f},{'low' if x + y < 1 else 'high'}" for x, y in numbers.random((80, 2))]
    (made / "flowers.csv").write_text("\n".join(["a,b,height,kind", *rows]))
    images = {
        f"{split}_x": numbers.random((n, 1, 8, 8), dtype=np.float32) for split, n in (("train", 64), ("test", 20))
    }
    classes = {f"{split}_y": numbers.integers(0, 10, n) for split, n in (("train", 64), ("test", 20))}
    np.savez(made / "all.npz", **images, **classes)
    return made


def loss_of(words, kind, outputs, targets):
    """The mean loss of a batch, by a formula."""
    if kind == "tokens":
        outputs, targets = outputs.flatten(0, 1), targets.flatten()
    if kind == "values" and "squared_log" in words:
        return torch.zeros(())  # of the logarithm of one class, which is all there is
    if kind == "values":
        return (outputs - targets).abs().mean() if words == "loss=mae" else (outputs - targets).square().mean()
    kept = targets != -100
    outputs, targets = outputs[kept], targets[kept]
    logs = outputs - outputs.logsumexp(1, keepdim=True)
    own = -logs.gather(1, targets[:, None])[:, 0]
    right = F.one_hot(targets, outputs.shape[1]).to(outputs)
    return {
        "": lambda: own,
        "loss=label_smoothing": lambda: 0.9 * own - 0.1 * logs.mean(1),
        "loss=focal": lambda: (1 - (-own).exp()) ** 2 * own,
        "loss=mse": lambda: (outputs - right).square().mean(1),
        "loss=mae": lambda: (outputs - right).abs().mean(1),
    }.get(words, lambda: own.square())().mean()


def reproduced(run, loss):
    """{set/loss: [R]} of the saved weights, in batches as they were evaluated and the run's precision."""
    plugin = lightning.Trainer(
        accelerator="cpu", precision=run.value("trainer.precision"), logger=False, enable_progress_bar=False,
        enable_checkpointing=False,
    ).precision_plugin  # fmt: skip
    data, found = run.datamodule(), {}
    for member in range(run.count):
        net = plugin.convert_module(run.net(member)).eval()
        for name in data.eval_names:
            x, y = data.examples_of(name)
            total = weight = 0.0
            for own, targets in zip(x.split(data.eval_batch_size), y.split(data.eval_batch_size), strict=True):
                with torch.inference_mode(), plugin.forward_context():
                    counted = int((targets != -100).sum()) if data.kind == "tokens" else len(own)
                    outputs = net(plugin.convert_input(own))
                    outputs = outputs.float() if outputs.dtype == torch.bfloat16 else outputs  # losses are float32
                    mean = loss_of(loss, data.kind, outputs, plugin.convert_input(targets))
                total, weight = total + float(mean) * counted, weight + counted
            found.setdefault(f"{name}/loss", []).append(total / weight)
    return found


def fits(combination):
    """Whether these go together at all: what does not is to be refused."""
    data, model, loss, optimizer, schedule, flag = combination
    inputs = data in SUITED[model]
    classes = data not in VALUES
    losses = classes if loss in ("loss=label_smoothing", "loss=focal") else True
    own = "squared_log" in loss and data in TOKENS  # outputs [B, T, V] are not what it takes
    alone = flag == "replicas" and ("sam" in optimizer[0] or "lbfgs" in optimizer[0] or "muon" in optimizer[0])
    several = flag == "accumulated" and ("sam" in optimizer[0] or "lbfgs" in optimizer[0])
    cycled = "onecycle" in schedule and "lbfgs" in optimizer[0]  # which has no momentum to cycle
    plateau = "plateau" in schedule and flag == "replicas"
    noisy = flag == "augmented" and data in TOKENS
    return inputs and losses and not (own or alone or several or cycled or plateau or noisy)


DRAWINGS = combinations(DRAWN)
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "combination",
    [pytest.param(one, id=named(one), marks=[] if i < SAMPLE else [SLOW]) for i, one in enumerate(DRAWINGS)],
)
def test_it_trains_as_it_says_or_is_refused(combination, command, folder, tmp_path, monkeypatch):
    data, model, loss, optimizer, schedule, flag = combination
    words = [
        *("trainer.max_epochs=2", "logger=none", "trainer.progress=false", "hydra/launcher=basic"),
        *("dataset.train_size=32", "dataset.batch_size=16", "dataset.eval_batch_size=25"),
        *(word.format(folder=folder) if "{folder}" in word else word for word in DATA[data]),
        *(*MODELS[model], *([loss] if loss else []), *optimizer, *schedule.split(), *FLAGS[flag]),
    ]
    words = list({word.partition("=")[0]: word for word in words}.values())  # the last of a key
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    done = command(*words, output=tmp_path)
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if not fits(combination):
        assert done.returncode == 1 and len(said) == 1 and "Traceback" not in done.stderr, done.stderr
        assert not list(tmp_path.rglob("*.ckpt"))
        return
    assert done.returncode == 0, (words, done.stderr)
    (run,) = Sweep.read(tmp_path / "default").runs
    assert isinstance(run, Run)
    for name, values in reproduced(run, loss).items():
        recorded = [run.metrics(member)[name] for member in range(run.count)]
        assert values == pytest.approx(recorded, rel=1e-5, abs=1e-6), name


def test_what_is_drawn_has_all():
    """Every value of every axis; some that go together, and some that do not."""
    axes = (DATA, MODELS, LOSSES, OPTIMIZERS, SCHEDULES, FLAGS)
    for axis, drawn in zip(axes, zip(*DRAWINGS, strict=True), strict=True):
        assert set(drawn) == set(axis)
    fit = sum(map(fits, DRAWINGS))
    assert 30 <= fit <= DRAWN - 10, fit
