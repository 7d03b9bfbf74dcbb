"""What leaves the caller's module, modes, gradients, switches and random state alone, written once."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


def own_copy(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose parameters ask for no gradient; the memory format of its tensors stays."""
    with torch.inference_mode(False):  # else what is copied could not be written to later
        return copy.deepcopy(module).eval().requires_grad_(False)


@contextlib.contextmanager
def differentiable(device: torch.device, module: nn.Module | None = None) -> Iterator[None]:
    """Gradients on, no autocast and no inference mode, whatever the caller has switched.

    Recurrent layers of `module` have a backward in evaluation mode, and a second one.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        if device.type == "cuda" and module is not None and _is_recurrent(module):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # cuDNN's have neither
        yield


@contextlib.contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Torch's random state, of the CPU and of a CUDA device, is what it was at the end."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@contextlib.contextmanager
def twice_differentiable(device: torch.device, module: nn.Module) -> Iterator[None]:
    """`differentiable` with kernels that have a second derivative; the random state is what it was at the end."""
    with random_state_kept(device), differentiable(device, module), sdpa_kernel(SDPBackend.MATH):
        yield


@contextlib.contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Every part of `module` is in the mode at the end, training or evaluation, that it was in."""
    modes = {part: part.training for part in module.modules()}
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def _is_recurrent(module: nn.Module) -> bool:
    return any(isinstance(part, nn.RNNBase) for part in module.modules())
