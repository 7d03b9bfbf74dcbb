"""A real Lightning fit of a small net on the CPU, without the rest of a run."""

import warnings

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger

from hw1.data import DataModule
from hw1.models import Members
from hw1.training.task import Task

torch.set_num_threads(1)  # nets this small are slower on two threads, much slower where the cores are shared

DATA = {
    "batch_size": 16,
    "train_size": None,
    "corruption": 0.0,
    "val_fraction": 0.0,
    "seed": 0,
    "workers": 0,
    "eval_batch_size": 33,
}


def tiny_fit(
    net, examples, folder, callbacks=(), *, logger=False, epochs=1, optimizer=None, data=None, task=None, **trainer
):
    """The trainer after `epochs` epochs."""
    module = DataModule(examples, **DATA | (data or {}))
    if isinstance(net, Members):
        module.order_seeds = list(range(net.count))
    adam = lambda parameters: torch.optim.Adam(parameters, 1e-2)  # noqa: E731
    made = Task(net, module.loss, optimizer or adam, **(task or {}))
    with warnings.catch_warnings():
        # The examples lie in memory; Lightning 2.6 asks torch 2.15's pytrees in a deprecated way.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        fitting = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            default_root_dir=folder,
            callbacks=list(callbacks),
            logger=logger,
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            **trainer,
        )
        fitting.fit(made, datamodule=module)
    return fitting


class Sam(torch.optim.SGD):
    """Sharpness-aware minimisation (Foret et al. 2021): the gradient of a step is that at a perturbed point."""

    def step(self, closure):
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        with torch.enable_grad():
            loss = closure()
        gradients = [parameter.grad.clone() for parameter in parameters]
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter += 0.5 * gradient / norm
        with torch.enable_grad():
            closure()
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 0.5 * gradient / norm
        super().step()
        return loss


class Lines(Logger):
    """Keeps what is logged, call by call: (step, metrics)."""

    name, version = "", ""

    def __init__(self):
        super().__init__()
        self.lines = []

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        self.lines.append((step, dict(metrics)))

    def of(self, name):
        """{step: value} of a metric; a step that is logged twice is an error."""
        found = [(step, metrics[name]) for step, metrics in self.lines if name in metrics]
        assert len(dict(found)) == len(found), f"{name}: a step is logged twice"
        return dict(found)
