"""What measures are taken of, made by hand: networks and data without a run."""

import torch

from hw1.data import DataModule, Function
from hw1.measures import Subject, Weights
from tiny_fit import DATA

torch.set_num_threads(1)  # nets this small are slower on two threads, much slower where the cores are shared


def function(points=40):
    return Function("sin_2", [-1, 1], points=points, noise=0.0, noise_seed=0, test_points=10)


def subject_of(nets, examples, *, seed=0, epoch=3, phase="training", earlier=(), **data):
    """The members `nets` at the end of a run; `earlier`: (epoch, phase, nets) of moments before."""
    module = DataModule(examples, **DATA | {"batch_size": None} | data)
    moments = [*earlier, (epoch, phase, nets)]
    return Subject([Weights(e, p, [net.eval() for net in own]) for e, p, own in moments], module.loss, module, seed)


def train(net, examples, steps, lr=1e-2):
    """A few steps of Adam on the whole training set."""
    sets = examples.load()
    optimizer = torch.optim.Adam(net.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        examples_loss = torch.nn.functional.mse_loss(net(sets.train_x), sets.train_y)
        examples_loss.backward()
        optimizer.step()
    return net


def broken(net, how):
    """The same network after it has diverged: its weights are NaN, or finite and its loss is not."""
    with torch.no_grad():
        last = list(net.parameters())[-1]
        last.fill_({"weights": float("nan"), "loss": 1e30}[how])
    return net
