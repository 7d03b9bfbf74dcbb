"""What is trained in one process and in several: 100 steps or more of small networks, in float64."""

from dataclasses import dataclass

COMMON = (
    *("dataset=digits", "dataset.train_size=102", "dataset.batch_size=16", "model=mlp", "model.hidden=[6]"),
    *("trainer.precision=64-true", "trainer.progress=false", "trainer.max_epochs=15", "logger=none", "callbacks=none"),
)  # 7 batches an epoch, the last one of 6 examples: 105 steps


@dataclass(frozen=True)
class Case:
    """A run.

    Attributes:
        words: of its command, besides those that all share.
        processes: in which it is trained.
        limit: of the differences.
        machines: to which these belong.
    """

    words: str = ""
    processes: int = 2
    limit: float = 1e-8
    machines: int = 1


CASES = {
    "ragged last batch": Case(),
    "three processes": Case(processes=3),
    "a share may be empty": Case("dataset.train_size=33 dataset.batch_size=2 trainer.max_epochs=6", processes=3),
    "batches of one example": Case("dataset.train_size=20 dataset.batch_size=1 trainer.max_epochs=5"),
    "the full batch": Case("dataset.batch_size=null trainer.max_epochs=100"),
    "accumulated gradients": Case("+trainer.accumulate_grad_batches=3 trainer.max_epochs=34"),
    "clipped norm": Case("+trainer.gradient_clip_val=0.1"),
    "clipped values": Case("+trainer.gradient_clip_val=0.01 +trainer.gradient_clip_algorithm=value"),
    "weight decay and momentum": Case("optimizer=sgd_nesterov optimizer.weight_decay=0.01"),
    "AdamW, groups": Case("optimizer=adamw optimizer.weight_decay=0.1 optimizer.no_decay=[bias]"),
    "SAM": Case("optimizer=sam"),
    "LBFGS": Case("optimizer=lbfgs dataset.batch_size=null optimizer.max_iter=4 trainer.max_epochs=5"),
    "Muon": Case("optimizer=muon"),
    "a schedule by a metric": Case("scheduler=plateau"),
    "weights of classes": Case("loss=class_weights"),
    "smoothed labels, further metrics": Case("loss=label_smoothing metrics=[f1,auroc]"),
    # torchmetrics adds it up in float32
    "a metric of float32": Case("metrics=[calibration_error] trainer.max_epochs=2", limit=1e-6),
    "a validation set, the best weights": Case(
        "dataset.val_fraction=0.2 callbacks=[default,best_checkpoint] callbacks.best_checkpoint.monitor=val/loss"
    ),
    "averaged weights": Case("callbacks=[default,ema] callbacks.ema.decay=0.9"),
    "stopped at a loss": Case("callbacks=[default,stop_at_train_loss] callbacks.stop_at_train_loss.loss=1.9"),
    "stopped by a callback": Case("callbacks=[default,early_stopping] optimizer.lr=0.3"),
    "gradient norms, tracked sharpness": Case(
        "callbacks=[default,gradient_norm,track] callbacks.track.every_n_epochs=5 "
        "callbacks.track.measure.sharpness.examples=32"
    ),
    "transformed inputs": Case("transform=noise"),
    "convolutions": Case('~model.hidden model=cnn model.layers=["c3(4)",p2,8]'),
    "processes that read": Case("dataset.workers=1 trainer.max_epochs=2"),
    "tokens, some of which do not count": Case(
        "dataset=modular dataset.p=7 dataset.batch_size=5 ~model.hidden model=gpt model.size=8 "
        "model.blocks=1 model.heads=2 dataset.train_size=null trainer.max_epochs=21"
    ),
    "squared error": Case("dataset=function dataset.batch_size=16 dataset.train_size=102 model.hidden=[6]"),
    "evaluated within an epoch": Case("+trainer.val_check_interval=3 trainer.max_epochs=15"),
    "limited batches, one order": Case("+trainer.overfit_batches=2 trainer.max_epochs=50"),
    "two machines, accumulated gradients": Case("+trainer.accumulate_grad_batches=3 trainer.max_epochs=34", machines=2),
    "two machines, a share may be empty": Case(
        "dataset.train_size=33 dataset.batch_size=3 trainer.max_epochs=10 transform=noise", processes=4, machines=2
    ),
}
