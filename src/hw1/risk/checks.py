"""What an `EmpiricalRisk` takes: a module to copy and differentiate, parameters and thetas that are numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

# What stands around a module, and where the module is found.
AROUND = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}


def check_module(module: object) -> nn.Module:
    """The module, where it is one whose own parameters compute its outputs.

    Raises:
        ValueError: it is something else, stands around such a module, or changes its parameters by itself.
    """
    if isinstance(module, torch.jit.ScriptModule | torch.jit.ScriptFunction):
        raise ValueError(
            f"module: got a {type(module).__name__}, expected a plain nn.Module: give the module that was scripted or "
            "traced"
        )
    if not isinstance(module, nn.Module):
        what = type(module).__name__
        if callable(module):
            raise ValueError(
                f"module: got a {what} that is no nn.Module, expected one: give a function f(parameters, inputs) "
                "together with parameters={name: tensor}"
            )
        raise ValueError(f"module: got a {what}, expected an nn.Module: give the network itself")
    for name, part in module.named_modules():
        where = f" at {name}" if name else ""
        kind = type(part).__name__
        if kind in AROUND and hasattr(part, AROUND[kind]):
            raise ValueError(f"module: got a {kind}{where}, expected the module inside: give it as .{AROUND[kind]}")
        if "quantized" in type(part).__module__.split("."):
            raise ValueError(
                f"module: got a quantized {kind}{where}, expected parameters that are numbers: give the network from "
                "before quantization"
            )
        if isinstance(part, torch.jit.ScriptModule):
            raise ValueError(f"module: got a {kind}{where}, expected plain nn.Modules: give what was scripted")
        if getattr(part, "max_norm", None) is not None and isinstance(part, nn.Embedding | nn.EmbeddingBag):
            raise ValueError(
                f"module: got a {kind} with max_norm{where}, which changes its weights when it is evaluated, expected "
                "a function of theta: set max_norm=None after training"
            )
        for own, tensor in part.named_buffers(recurse=False):
            if tensor.is_meta:
                raise ValueError(
                    f"module: got {own} on the meta device, expected values: load them, or module.to_empty(...)"
                )
    return module


def check_parameters(module: nn.Module) -> None:
    """Refuse a module without parameters, or with some that are not finite numbers.

    Raises:
        ValueError: there is one.
    """
    named = list(module.named_parameters())
    if not named:
        raise ValueError(
            "module: got no parameters, expected at least one: give a network (a quantized one hides its weights)"
        )
    for name, parameter in named:
        if is_lazy(parameter):
            raise ValueError(
                f"module: got {name} without a shape, expected values: evaluate the lazy module on a batch first"
            )
        if parameter.is_meta:
            raise ValueError(
                f"module: got {name} on the meta device, expected values: load them, or module.to_empty(...)"
            )
        if parameter.layout != torch.strided:
            raise ValueError(
                f"module: got {name} of {parameter.layout}, expected a dense tensor: convert it with .to_dense()"
            )
        if parameter.is_complex():
            raise ValueError(
                f"module: got {name} of {parameter.dtype}, expected real numbers: hold real and imaginary part as two "
                "parameters (torch.view_as_complex joins them)"
            )
        if not parameter.is_floating_point():
            raise ValueError(
                f"module: got {name} of {parameter.dtype}, expected floating point: convert it with module.double()"
            )
        with torch.inference_mode():
            finite = bool(parameter.isfinite().all())
        if not finite:
            raise ValueError(
                f"module: got values in {name} that are not finite, expected finite ones: did training diverge?"
            )


def check_theta(theta: Tensor, size: int) -> None:
    """Refuse what is no finite vector theta [P].

    Raises:
        ValueError: another dtype or shape, or values that are not finite.
    """
    if not isinstance(theta, Tensor):
        raise ValueError(
            f"theta: got a {type(theta).__name__}, expected a tensor [{size}]: begin with risk.theta, or "
            "risk.space.flatten(...) of named tensors"
        )
    if theta.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"theta: got {theta.dtype}, expected float32 or float64: convert it with theta.double()")
    if theta.shape != (size,):
        raise ValueError(f"theta: got shape {list(theta.shape)}, expected [{size}]: begin with risk.theta")
    if bad := int((~theta.isfinite()).sum()):
        raise ValueError(
            f"theta: got {bad} of {theta.numel()} values that are not finite, expected none of them: did training "
            "diverge?"
        )


def check_vectors(v: Tensor, theta: Tensor, size: int) -> None:
    """Refuse what is no vector [P] or block [P, k] of theta's dtype, on its device.

    Raises:
        ValueError: another shape, dtype or device.
    """
    if not isinstance(v, Tensor):
        raise ValueError(f"v: got a {type(v).__name__}, expected a tensor [{size}] or [{size}, k]: use torch.as_tensor")
    if v.ndim not in (1, 2) or len(v) != size:
        raise ValueError(
            f"v: got shape {list(v.shape)}, expected [{size}] or [{size}, k]: flatten named tensors with "
            "risk.space.flatten(...)"
        )
    if v.dtype != theta.dtype or v.device != theta.device:
        raise ValueError(
            f"v: got {v.dtype} on {v.device}, expected theta's {theta.dtype} on {theta.device}: use v.to(theta)"
        )
