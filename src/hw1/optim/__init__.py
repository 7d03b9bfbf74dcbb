"""Optimizers and schedules that torch.optim lacks."""

from hw1.optim.muon import Muon
from hw1.optim.sam import Sam
from hw1.optim.schedules import cosine_warmup, linear_warmup

__all__ = ["Muon", "Sam", "cosine_warmup", "linear_warmup"]
