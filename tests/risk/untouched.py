"""What a caller has before and after: module, batches, loader, and the states of every source of randomness."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader


def content(tensor: Tensor) -> Any:
    """What can be compared of a tensor: values as bytes, so that NaN equals NaN, and all that belongs to it."""
    lazy = isinstance(tensor, nn.parameter.UninitializedTensorMixin)
    if lazy or tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
        return type(tensor), str(tensor.dtype), tensor.requires_grad
    version = None if tensor.is_inference() else tensor._version
    with torch.no_grad():
        flat = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.detach().reshape(-1))
        values = flat.view(torch.uint8).tolist() if tensor.numel() else []
    return values, tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.requires_grad, version, tensor.data_ptr()


def of_module(module: Any) -> dict[str, Any]:
    """Parameters with their gradients, buffers, modes, hooks and attributes of every part."""
    if not isinstance(module, nn.Module):
        return {}
    found: dict[str, Any] = {}
    for name, parameter in module.named_parameters():
        found[f"parameter {name}"] = id(parameter), content(parameter)
        gradient = parameter.grad
        found[f"gradient {name}"] = None if gradient is None else (id(gradient), content(gradient))
    for name, buffer in module.named_buffers():
        found[f"buffer {name}"] = id(buffer), content(buffer)
    for name, part in module.named_modules():
        found[f"mode {name}"] = part.training
        if not isinstance(part, torch.jit.ScriptModule):
            found[f"attributes {name}"] = sorted(part.__dict__)
            found[f"class {name}"] = type(part)
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_state_dict_hooks")
        found[f"hooks {name}"] = [len(getattr(part, hook, ())) for hook in hooks]
    return found


def of_batches(batches: Any) -> Any:
    """Every tensor, array and number in memory; of a loader, its set and its generator's state."""
    if isinstance(batches, Tensor):
        return content(batches), None if batches.is_leaf is False else batches.grad
    if isinstance(batches, np.ndarray):
        return batches.tolist(), str(batches.dtype)
    if isinstance(batches, Mapping):
        return type(batches), [(key, of_batches(batches[key])) for key in batches]
    if isinstance(batches, list | tuple):
        return type(batches), [of_batches(part) for part in batches]
    if isinstance(batches, DataLoader):
        generator = batches.generator
        state = None if generator is None else generator.get_state().tolist()
        return state, of_batches([getattr(batches.dataset, name, None) for name in ("x", "y", "all")])
    if hasattr(batches, "batches"):
        return of_batches(batches.batches)
    if hasattr(batches, "inputs") and hasattr(batches, "targets"):
        return of_batches([batches.inputs, batches.targets])
    if hasattr(batches, "x") and hasattr(batches, "y"):
        return of_batches([batches.x, batches.y])
    return None  # a number, a name, or what is read once


def of_process() -> dict[str, Any]:
    """Random states and switches."""
    numpy_state = np.random.get_state()
    backends = torch.backends
    leaves = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul]
    leaves += [backends.mkldnn.conv, backends.mkldnn.rnn]
    return {
        "torch": torch.get_rng_state().tolist(), "python": random.getstate(),
        "numpy": (numpy_state[0], numpy_state[1].tolist(), *numpy_state[2:]),
        "precision": [leaf.fp32_precision for leaf in leaves], "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(), "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"), "deterministic": torch.are_deterministic_algorithms_enabled(),
        "fast path": torch.backends.mha.get_fastpath_enabled(), "anomaly": torch.is_anomaly_enabled(),
        "kernels": (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled(),
                    torch.backends.cuda.mem_efficient_sdp_enabled()),
        "threads": torch.get_num_threads(), "checks": torch.autograd.graph.saved_tensors_hooks is not None,
    }  # fmt: skip


def differences(before: Any, after: Any, at: str = "") -> list[str]:
    """Where two of these are not the same, by name."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        missing = object()
        return [
            d for key in keys for d in differences(before.get(key, missing), after.get(key, missing), f"{at}{key} ")
        ]
    return [] if type(before) is type(after) and before == after else [at.strip() or "value"]


@contextlib.contextmanager
def untouched(module: Any, batches: Any) -> Iterator[None]:
    """Whatever happens inside, also an error: the caller's things are as before."""
    torch.manual_seed(1234)
    np.random.seed(1234)
    random.seed(1234)

    def look() -> dict[str, Any]:
        return copy.deepcopy({"process": of_process()}) | {
            "module": of_module(module), "batches": {"of the caller": of_batches(batches)},
        }  # fmt: skip

    before = look()
    try:
        yield
    finally:
        changed = differences(before, look())
        assert not changed, f"the caller's {', '.join(changed)} changed"
