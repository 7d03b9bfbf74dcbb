"""What leaves the caller's module, modes, gradients, switches and random states alone, written once."""

from __future__ import annotations

import contextlib
import copy
import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hw1.risk.precision import Precision, multiplied_in, without_cudnn

_PASSES = itertools.count(1)  # over loaders, in this process


def own_copy(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose parameters ask for no gradient; the memory format of its tensors stays.

    Tensors that a module stores from its last evaluation (a pruned weight, a hook's output) are copied by value.

    Raises:
        ValueError: the module holds something that cannot be copied.
    """
    with torch.inference_mode(False):  # else what is copied could not be written to later
        memo: dict[int, Any] = {}
        for part in module.modules():
            for tensor in _computed(vars(part)):
                memo[id(tensor)] = tensor.detach().clone()
        try:
            own = copy.deepcopy(module, memo)
        except (TypeError, RuntimeError, AttributeError, NotImplementedError) as error:
            raise ValueError(
                f"module: got {type(error).__name__} from copy.deepcopy ({line_of(error)}), expected a module that "
                "can be copied: leave open files, locks and generators out of its attributes"
            ) from error
        for part in own.modules():
            if type(part) is nn.Embedding:
                part.padding_idx = None  # torch's gradient leaves that row out, though values depend on it
        return own.eval().requires_grad_(False)


def _computed(held: Any) -> Iterator[Tensor]:
    """Tensors that have a history, in attributes and in lists, tuples and dicts of them: deepcopy refuses these."""
    if isinstance(held, Tensor):
        if not held.is_leaf:
            yield held
    elif isinstance(held, dict):
        for value in held.values():
            yield from _computed(value)
    elif isinstance(held, list | tuple):
        for value in held:
            yield from _computed(value)


def line_of(error: BaseException) -> str:
    """The first line of what it says that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def differentiable(
    device: torch.device, module: nn.Module | None = None, precision: Precision = "ieee"
) -> Iterator[None]:
    """Gradients on, no autocast and no inference mode, whatever the caller has switched; float32 multiplied as said.

    Recurrent layers of `module` have a backward in evaluation mode, and a second one. Transformers take no short cut
    that exists without gradients alone.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(multiplied_in(precision))
        stack.enter_context(_no_fast_path())
        if device.type == "cuda" and module is not None and _is_recurrent(module):
            stack.enter_context(without_cudnn())  # cuDNN's have neither
        yield


@contextlib.contextmanager
def _no_fast_path() -> Iterator[None]:
    """Attention layers compute the same with and without gradients, padded positions too."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Torch's random state, of the CPU and of a CUDA device, NumPy's and Python's are what they were at the end."""
    numpy, python = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        np.random.set_state(numpy)
        random.setstate(python)


@contextlib.contextmanager
def reading(batches: Any) -> Iterator[None]:
    """A pass over a loader leaves random states as they were, its own generators' too: it shuffles, and draws seeds.

    Inside, each pass has another seed, so that examples that change from pass to pass are found to.
    """
    held = [batches, getattr(batches, "sampler", None), getattr(batches, "batch_sampler", None)]
    held.append(getattr(held[-1], "sampler", None))
    found = {id(own): own for one in held if isinstance(own := getattr(one, "generator", None), torch.Generator)}
    states = [(own, own.get_state()) for own in found.values()]
    try:
        with random_state_kept(torch.device("cpu")):
            if not isinstance(batches, list | tuple):
                seed = next(_PASSES)
                torch.default_generator.manual_seed(seed)
                np.random.seed(seed)
                random.seed(seed)
                for own in found.values():
                    own.manual_seed(seed)
            yield
    finally:
        for own, state in states:
            own.set_state(state)


@contextlib.contextmanager
def twice_differentiable(device: torch.device, module: nn.Module, precision: Precision = "ieee") -> Iterator[None]:
    """`differentiable` with kernels that have a second derivative; the random states are what they were at the end."""
    with random_state_kept(device), differentiable(device, module, precision), sdpa_kernel(SDPBackend.MATH):
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
