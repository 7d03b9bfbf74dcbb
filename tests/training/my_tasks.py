"""LightningModules as users write them."""

import lightning
import torch
from torch import nn
from torch.nn.functional import cross_entropy, kl_div


class Distilled(lightning.LightningModule):
    """A student that learns from a frozen teacher; the optimizer and the metrics are hw1's."""

    def __init__(self, net, loss, *, temperature):
        super().__init__()
        self.save_hyperparameters()
        self.net, self.loss = net, loss
        self.teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False)
        self.temperature = temperature

    def training_step(self, batch, batch_idx):
        x, y = batch
        outputs = self.net(x)
        soft = (self.teacher(x) / self.temperature).softmax(1)
        distilled = kl_div((outputs / self.temperature).log_softmax(1), soft, reduction="batchmean")
        self.log("distilled", distilled)
        return self.loss(outputs, y) + 0.1 * distilled


class Plain(lightning.LightningModule):
    """What hw1's own task does, written anew."""

    def __init__(self, net, optimizer):
        super().__init__()
        self.net, self.optimizer = net, optimizer

    def training_step(self, batch, batch_idx):
        return cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return self.optimizer(self.net.parameters())


class Itself(lightning.LightningModule):
    """A module that is its own network, with steps of its own as in Lightning's manual."""

    def __init__(self, in_shape, out_features, hidden=8):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(hidden, out_features)

    def forward(self, x):
        return self.head(self.body(x))

    def training_step(self, batch, batch_idx):
        return cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_hits", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def test_step(self, batch, batch_idx):
        self.log("mine/hits", (self(batch[0]).argmax(1) == batch[1]).float().mean())
        self.log("test_size", float(len(batch[1])), reduce_fx="sum")


class Gan(lightning.LightningModule):
    """Two networks, two optimizers, steps by hand; its network is the generator, which takes no images."""

    def __init__(self, in_shape):
        super().__init__()
        self.automatic_optimization = False
        self.net = nn.Sequential(nn.Linear(4, 64), nn.Sigmoid())
        self.critic = nn.Linear(64, 1)

    def training_step(self, batch, batch_idx):
        real = batch[0].flatten(1)
        for optimizer, sign in zip(self.optimizers(), (-1, 1), strict=True):
            made = self.net(torch.randn(len(real), 4))
            loss = self.critic(made).mean() - (self.critic(real).mean() if sign == 1 else 0)
            optimizer.zero_grad()
            self.manual_backward(sign * loss)
            optimizer.step()

    def test_step(self, batch, batch_idx):
        self.log("realism", self.critic(batch[0].flatten(1)).mean())

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), 1e-2) for part in (self.net, self.critic)]


class Elsewhere(Distilled):
    """Keeps what it is given under another name."""

    def __init__(self, net, loss):
        super().__init__(nn.Identity(), loss, temperature=1)
        self.student = net


class NoStep(lightning.LightningModule):
    """Trains nothing."""
