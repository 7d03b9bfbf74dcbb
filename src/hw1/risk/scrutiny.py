"""What would make a risk's numbers wrong, looked for before they are given, and refused by name.

`examine` asks what values need, when a risk is made; `confirm` what gradients and products need, when the first is
asked for. Both look at a few examples, in float64 where the module takes it; whether the loss is a mean is looked at
for all of them, unless torch itself says so.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hw1.risk.counts import Reduction, known_mean
from hw1.risk.derivatives import IN_FLOAT32, IN_FLOAT64, moved, wrong_gradient, wrong_product
from hw1.risk.examples import close
from hw1.risk.mean import Additivity, Mixing, halves
from hw1.risk.memory import out_of_memory
from hw1.risk.nested import cast, common_length, detached, map_tensors, rows_of, tensors_of
from hw1.risk.precision import tolerance
from hw1.risk.stale import read_of

if TYPE_CHECKING:
    from hw1.risk.empirical import EmpiricalRisk

FEW = 8  # examples that derivatives and their independence are looked at with
BATCH_LOSS = "the mean over what the batch counts"


def examine(risk: EmpiricalRisk, stated: str | None, caller: nn.Module | None) -> Reduction:
    """Find out how the risk is evaluated, and whether its loss is a mean or a sum.

    Args:
        risk: R; how it is evaluated is noted in its `Ways`.
        stated: the reduction, where the user or the loss says it.
        caller: the module as it was given; None to look no further than whether it can be evaluated.

    Raises:
        ValueError: it cannot; or, unless `caller` is None, one of the things in the docstring of `EmpiricalRisk`.
    """
    with torch.inference_mode(False):
        return _examine(risk, stated, caller)


def confirm(risk: EmpiricalRisk, kind: str) -> None:
    """Find out whether gradients, or products of a kind, are right here; once in the life of a risk.

    Args:
        risk: R.
        kind: "gradient", "hessian" or "gauss_newton".

    Raises:
        ValueError: they are not, or an operation cannot be differentiated so often.
    """
    ways = risk._ways
    if not risk._checked or kind in ways.confirmed:
        return
    if kind != "gradient":
        confirm(risk, "gradient")
    ways.confirmed |= {kind}  # what follows asks for gradients and products
    try:
        with torch.inference_mode(False), torch.enable_grad():
            _confirm(risk, kind)
    except BaseException:
        ways.confirmed -= {kind}
        raise


@contextlib.contextmanager
def said_by_name(what: str) -> Iterator[None]:
    """An operation without such a derivative is named in one line, with the remedy.

    Raises:
        ValueError: torch has none.
    """
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        if out_of_memory(error):
            raise
        said = _line(error)
        if "heckpoint" in said:
            remedy = "use torch.utils.checkpoint with use_reentrant=False"
        elif what == "gradient":
            remedy = "use operations that torch can differentiate twice, or HessianByDifferences(risk, theta)"
        else:
            remedy = "use HessianByDifferences(risk, theta), which takes differences of gradients"
        raise ValueError(
            f"module: got an operation that cannot be differentiated for the {what} ({said}), expected one with a "
            f"second derivative: {remedy}"
        ) from error


# --- values


def _examine(risk: EmpiricalRisk, stated: str | None, caller: nn.Module | None) -> Reduction:
    theta = risk.theta
    if theta.dtype not in (torch.float32, torch.float64):
        theta = theta.float()
    first = _first(risk)
    name = "loss" if risk.loss is not None else "batch_loss"
    _evaluable(risk, first, theta, name)
    if caller is None:
        return "sum" if stated == "sum" else "mean"
    generator = torch.Generator().manual_seed(0)
    exact = _in_float64(risk, theta, first)
    near = _near(risk, first, exact, generator)
    if risk.examples.gaps:
        scalar(name, risk(theta), "the mean over examples", [batch for batch, _ in risk.examples.chunks(theta)])
    _same_again(risk, first, exact)
    _own_weights_alone(risk, first, near, caller, name)
    if risk.examples.together:
        return "sum" if stated == "sum" else "mean"
    _independent(risk, first, exact)
    additivity = _additivity(risk, first, theta, near, generator, stated, name)
    reduction = additivity.decided(stated, name)
    if reduction == "sum" and stated is None:
        warnings.warn(
            f"{name}: its values add up, so R is taken as the sum over all examples: say so with reduction='sum'",
            stacklevel=4,
        )
    return reduction


def _first(risk: EmpiricalRisk) -> Any:
    """A few examples, spread over the batches; those that weigh something."""
    return detached(risk.examples.few(FEW).first)


def _evaluable(risk: EmpiricalRisk, first: Any, theta: Tensor, name: str) -> None:
    """Evaluate once, and note how.

    Raises:
        ValueError: shapes or dtypes do not fit, or the loss is no finite number.
    """
    before = [tensor.clone() for tensor in tensors_of(first)]
    ways = risk._ways
    try:
        value = _once(risk, first, theta)
    except RuntimeError as error:
        if "does not require grad" not in str(error) and "inference" not in str(error).lower():
            raise _unfit(risk, first, name, error) from error
        ways.graph = True
        value = _tried(risk, first, theta, name)
    except Exception as error:
        raise _unfit(risk, first, name, error) from error
    changed = any(
        not close(own.double(), kept.double()) if own.is_floating_point() else not torch.equal(own, kept)
        for own, kept in zip(tensors_of(first), before, strict=True)
    )
    if changed:
        raise ValueError("batches: got examples that forward writes to, expected them to stay")
    scalar(name, value, "the mean over examples" if risk.loss is not None else BATCH_LOSS, first)


def _tried(risk: EmpiricalRisk, first: Any, theta: Tensor, name: str) -> Tensor:
    try:
        return _once(risk, first, theta)
    except Exception as error:
        raise _unfit(risk, first, name, error) from error


def _once(risk: EmpiricalRisk, first: Any, theta: Tensor) -> Tensor:
    """The loss of the first examples; notes where what is given is written to."""
    own = map_tensors(cast(first, theta), torch.clone)
    versions = [tensor._version for tensor in tensors_of(own)]
    with warnings.catch_warnings(), risk._point(theta, leaves=False) as point, risk._values():
        # torch only warns where mse_loss broadcasts [B] against [B, 1] to a [B, B] of wrong pairs.
        warnings.filterwarnings("error", message="Using a target size")
        placed = [(key, tensor, tensor._version) for key, tensor in point.leaves.items()]
        if risk.loss is None:
            value = risk._loss_of(point, own)
        else:
            outputs = risk._outputs(point, own[0])
            loss_versions = [tensor._version for tensor in tensors_of(outputs)]
            value = risk._loss_at(outputs, own[1], theta)
            if loss_versions != [tensor._version for tensor in tensors_of(outputs)]:
                risk._ways.clones = True
        for key, tensor, version in placed:
            if tensor._version != version:
                raise ValueError(
                    f"module: got a forward that changes {key} in place, expected a function of theta: compute with a "
                    "changed copy, and without max_norm"
                )
    if versions != [tensor._version for tensor in tensors_of(own)]:
        risk._ways.clones = True
    return value


def _unfit(risk: EmpiricalRisk, first: Any, name: str, error: BaseException) -> ValueError:
    """The error that says what did not fit."""
    if isinstance(error, ValueError) and str(error).startswith("module: got a forward that changes"):
        return error
    if risk.loss is None:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors_of(first))
        return ValueError(
            f"batch_loss: got {type(error).__name__} on the first batch ({type(first).__name__} of tensors {shapes}), "
            f"expected f(module, batch) -> []: {_line(error)}"
        )
    inputs, targets = (" and ".join(_shape(tensor) for tensor in tensors_of(part)) for part in first)
    shapes = f"inputs {inputs}, targets {targets}"
    with contextlib.suppress(Exception), torch.no_grad(), risk._point(risk.theta.float(), leaves=False) as point:
        outputs = risk._outputs(point, cast(first[0], risk.theta.float()))
        shapes += ", outputs " + " and ".join(_shape(tensor) for tensor in tensors_of(outputs))
    return ValueError(
        f"batches: got {shapes}, expected shapes and dtypes that the module and the loss take: {_line(error)}"
    )


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


def _line(error: BaseException) -> str:
    """The first line of what it says that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def scalar(name: str, value: object, meaning: str, batch: Any = None) -> None:
    """Refuse a loss that is no finite number.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, Tensor) or value.ndim:
        got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name}: got {got}, expected a tensor of shape []: return {meaning}")
    if not value.is_floating_point():
        raise ValueError(f"{name}: got {value.dtype}, expected a floating-point number: return {meaning}")
    if value.isfinite():
        return
    if any(tensor.is_floating_point() and bool(tensor.isnan().any()) for tensor in tensors_of(batch)):
        raise ValueError(
            f"batches: got NaN among the examples, and so a loss of {value.item()}, expected numbers: leave these "
            "examples out, or fill the gaps"
        )
    raise ValueError(
        f"{name}: got {value.item()} at the module's parameters, expected a finite number: did training diverge, or "
        "does it take the logarithm of 0?"
    )


def _in_float64(risk: EmpiricalRisk, theta: Tensor, first: Any) -> Tensor:
    """Theta in float64 where the module can be computed so; notes where it computes in float32 whatever theta is."""
    if theta.device.type == "mps":
        return theta
    exact = theta.double()
    if theta.dtype == torch.float64:
        risk._ways.loss_float32 |= _computed_in_float32(risk, first, exact)
        return exact
    plain = risk._ways
    for narrow in ((False, False), (False, True), (True, False), (True, True)):
        risk._ways = dataclasses.replace(plain, float32=narrow[0], loss_float32=narrow[1])
        with contextlib.suppress(Exception):
            rounded = _computed_in_float32(risk, first, exact)
            risk._ways.loss_float32 |= rounded
            return exact
    risk._ways = plain
    return theta


def _computed_in_float32(risk: EmpiricalRisk, first: Any, theta: Tensor) -> bool:
    """Whether the loss comes out in float32 whatever it is given, as that of most language models does."""
    found: list[torch.dtype] = []
    as_theta = risk._as_theta

    def noted(value: Tensor, like: Tensor) -> Tensor:
        found.append(value.dtype)
        return as_theta(value, like)

    risk._as_theta = noted  # type: ignore[method-assign]
    try:
        _once(risk, first, theta)
    finally:
        del risk._as_theta
    return found[-1] != torch.float64


def _near(risk: EmpiricalRisk, first: Any, theta: Tensor, generator: torch.Generator) -> Tensor:
    """A theta nearby at which the loss is finite, too: [P]."""
    for by in (0.05, 1e-3):
        near = moved(risk.space, theta, generator, by)
        if _value(risk, first, near).isfinite():
            return near
    return theta


def _value(risk: EmpiricalRisk, batch: Any, theta: Tensor) -> Tensor:
    with risk._point(theta, leaves=False) as point, risk._values():
        return risk._loss_of(point, cast(batch, theta)).detach()


def _same_again(risk: EmpiricalRisk, first: Any, theta: Tensor) -> None:
    """Refuse chance.

    Raises:
        ValueError: outputs or values differ at a second look.
    """
    own = cast(first, theta)
    with risk._point(theta, leaves=False) as point, risk._values():
        if risk.loss is None:
            value, again = (risk._loss_of(point, own).detach() for _ in range(2))
            if not close(value, again):
                raise ValueError(
                    f"batch_loss: got {value.item():.6g} and then {again.item():.6g} on one batch, expected a "
                    "deterministic function: no random calls in it or in forward"
                )
            return
        outputs = risk._outputs(point, own[0])
        values = [risk._loss_at(outputs, own[1], theta).detach() for _ in range(2)]
        if not close(*values):
            raise ValueError(
                f"loss: got {values[0].item():.6g} and then {values[1].item():.6g} for the same outputs, expected a "
                "deterministic function: no random calls in it"
            )
        kept = [tensor.detach().clone() for tensor in tensors_of(outputs)]
        for one, other in zip(kept, tensors_of(risk._outputs(point, own[0])), strict=True):
            if not _alike(risk, one, other.detach()):
                raise ValueError(
                    "module: got other outputs for the same inputs, expected a deterministic function: use nn.Dropout, "
                    "which evaluation mode switches off, in place of random calls in forward"
                )


def _alike(risk: EmpiricalRisk, one: Tensor, other: Tensor) -> bool:
    if not one.is_floating_point():
        return torch.equal(one, other)
    return one.shape == other.shape and close(one, other, tolerance=_tolerance(risk, one.dtype))


def _tolerance(risk: EmpiricalRisk, dtype: torch.dtype) -> float:
    narrow = risk._ways.float32 or risk._ways.loss_float32 or dtype != torch.float64
    if narrow or risk.precision == "bfloat16":
        return tolerance(torch.float32, risk.precision)
    return tolerance(torch.float64, risk.precision)


def _own_weights_alone(risk: EmpiricalRisk, first: Any, near: Tensor, caller: nn.Module, name: str) -> None:
    """Refuse who reads weights that theta does not move.

    Raises:
        ValueError: the loss reads the caller's own module; forward reads a copy of a parameter, or none at all.
    """
    own = cast(first, near)
    with risk._point(near, leaves=False) as point:
        stale = risk._network.stale(point.leaves)

        def compute() -> None:
            with risk._values():
                risk._loss_of(point, own)

        callers = [(key, p) for key, p in caller.named_parameters() if key in set(risk.space.names)]
        if found := read_of(callers, compute):
            function = "batch_loss=f(module, batch)" if risk.loss is not None else "the module that batch_loss is given"
            raise ValueError(
                f"{name}: got a function that reads {_some(found)} of your own module, which theta does not move, "
                f"expected one of {function}: compute with that module's parameters, and with .detach().clone() of "
                "what is to stay"
            )
        if found := read_of(stale, compute):
            raise ValueError(
                f"module: got a forward that reads {_some(found)} from elsewhere than the parameter, expected it to "
                "read self's parameter at every call: keep no lists, views or .data of parameters"
            )
    anew = risk._over(risk.examples)
    anew._network = risk._network.anew()
    if not _alike(risk, _value(anew, first, near), _value(risk, first, near)):
        raise ValueError(
            "module: got another value from a copy that was evaluated at another theta before, expected a function of "
            "theta: does forward keep what it computed once?"
        )
    if _uses_none(risk, own, near) and torch.equal(_value(risk, first, near), _value(risk, first, risk.theta.to(near))):
        raise ValueError(
            f"module: got a loss that depends on none of {_some(risk.space.names)}, expected one of theta: does "
            "forward read weights that were merged, cached or detached?"
        )


def _uses_none(risk: EmpiricalRisk, own: Any, theta: Tensor) -> bool:
    """Whether the loss of these examples has no way back to theta."""
    with risk._point(theta) as point:
        value = risk._loss_of(point, own)
        if not value.requires_grad:
            return True
        with contextlib.suppress(RuntimeError, NotImplementedError):
            found = torch.autograd.grad(value, tuple(point.leaves.values()), allow_unused=True)
            return all(gradient is None for gradient in found)
    return False


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _independent(risk: EmpiricalRisk, first: Any, theta: Tensor) -> None:
    """Refuse examples whose outputs depend on what else is in their batch.

    Raises:
        ValueError: they do.
    """
    length = common_length(first)
    if risk.loss is None or length is None or length < 2:
        return
    own = cast(first, theta)
    generator = torch.Generator().manual_seed(0)
    with risk._point(theta, leaves=False) as point, risk._values():
        outputs = map_tensors(risk._outputs(point, own[0]), Tensor.detach)
        if common_length(outputs) != length:
            return  # whether its losses add up is asked of the whole
        for rows in halves(length, generator):
            try:
                alone = risk._outputs(point, rows_of(own[0], rows))
            except Exception as error:
                raise ValueError(
                    f"module: got {type(error).__name__} on {len(rows)} of {length} examples ({_line(error)}), "
                    "expected independent examples: give batch-norm running statistics (track_running_stats=True)"
                ) from error
            for one, other in zip(tensors_of(alone), tensors_of(rows_of(outputs, rows)), strict=True):
                if not _alike(risk, one.detach(), other):
                    raise ValueError(
                        "module: got other outputs for an example when others left its batch, expected independent "
                        "examples: give batch-norm running statistics (track_running_stats=True), and recurrent layers "
                        "batch_first=True"
                    )


# --- mean or sum


def _additivity(
    risk: EmpiricalRisk,
    first: Any,
    theta: Tensor,
    near: Tensor,
    generator: torch.Generator,
    stated: str | None,
    name: str,
) -> Additivity:
    """How losses go together: of all batches, or of the first examples where torch says that a loss is a mean."""
    few = Additivity(10 * _tolerance(risk, near.dtype))
    if common_length(first) is not None:
        mixing = Mixing(few, generator)
        mixing.look(cast(first, near), risk.examples.weight, lambda part: _value(risk, part, near), apart=True)
    if not few.mean and not few.sum:
        return few
    if not risk.examples.said and known_mean(risk.loss):
        return few
    near = near.to(theta.dtype)
    if risk.loss is not None:
        return _over_outputs(risk, near, generator, few, name)
    everything = dataclasses.replace(few, tolerance=10 * _tolerance(risk, near.dtype))
    mixing = Mixing(everything, generator)
    for batch, _ in risk.examples.chunks(near):
        if common_length(batch) is not None:
            mixing.look(batch, risk.examples.weight, lambda part: _value(risk, part, near), apart=False)
    return everything


def _over_outputs(
    risk: EmpiricalRisk, near: Tensor, generator: torch.Generator, few: Additivity, name: str
) -> Additivity:
    """The same of all batches, by the loss alone, in float64, of outputs that are computed once."""
    exact = near if near.device.type == "mps" else near.double()
    narrow = risk._ways.loss_float32 or exact.dtype != torch.float64
    everything = dataclasses.replace(few, tolerance=2e-5 if narrow else 1e-8)
    mixing = Mixing(everything, generator)

    def value(part: tuple[Any, Any]) -> Tensor:
        return risk._loss_at(part[1], part[0][1], exact).detach()

    def weight(part: tuple[Any, Any]) -> float:
        return risk.examples.weight(part[0])

    with risk._point(near, leaves=False) as point, risk._values():
        for batch, _ in risk.examples.chunks(near):
            outputs = map_tensors(risk._outputs(point, batch[0]), Tensor.detach)
            both = (batch, cast(outputs, exact))
            if common_length(both) is not None and common_length(outputs) is not None:
                mixing.look(cast(both, exact), weight, value, apart=True)
            elif common_length(batch) is not None:
                mixing.look((batch, None), weight, lambda part: risk._loss_of(point, part[0]).detach(), apart=False)
    return everything


# --- derivatives


def _confirm(risk: EmpiricalRisk, kind: str) -> None:
    few = copy.copy(risk)
    few.examples = risk.examples.few(FEW)
    few._warned, few._said_float32, few._keep_graph, few._auto = True, True, False, False
    few._forget()
    theta = few.theta
    if theta.dtype not in (torch.float32, torch.float64):
        theta = theta.float()
    narrow = risk._ways.float32 or risk._ways.loss_float32 or risk.precision == "bfloat16" or theta.device.type == "mps"
    steps = IN_FLOAT32 if narrow else IN_FLOAT64
    if theta.device.type != "mps":
        theta = theta.double()
    generator = torch.Generator().manual_seed(0)
    theta = _near(few, few.examples.first, theta, generator)
    if kind == "gradient":
        slopes = wrong_gradient(few, few.gradient, few.space, theta, steps, generator)
        if slopes is not None:
            raise ValueError(
                f"module: got a slope of {slopes[0]:.6g} by its backward and {slopes[1]:.6g} by differences of its "
                "values, expected the same: a backward of its own (straight-through, reversed or clipped gradients, "
                "detached parts, torch.utils.checkpoint without use_reentrant=False) is not the derivative of forward"
            )
        return
    if kind == "gauss_newton":
        off = _wrong_gauss_newton(few, theta, generator, narrow=narrow)
        if off is not None:
            raise ValueError(
                f"module: got a Gauss-Newton form of {off[0]:.6g} and {off[1]:.6g} by differences of outputs, expected "
                "the same: is a backward of its own not the derivative of forward?"
            )
        return
    wrong = wrong_product(few.gradient, few.hvp, few.space, theta, steps, generator)
    if wrong is not None:
        raise ValueError(
            f"module: got products that are off by {wrong[1]:.2g} of their size at {wrong[0]} from differences of "
            "gradients, expected the same: an operation's backward has no derivative of its own (once_differentiable, "
            "saved tensors that were detached); use HessianByDifferences(risk, theta)"
        )


def _wrong_gauss_newton(
    few: EmpiricalRisk, theta: Tensor, generator: torch.Generator, *, narrow: bool
) -> tuple[float, float] | None:
    """None if v^T G v is the second difference of the loss along J v, J v by differences of outputs; else both."""
    v = torch.randn(len(theta), generator=generator, dtype=torch.float64).to(theta)
    v = v * (theta.norm().clamp_min(1e-2) / v.norm())
    found: tuple[float, float] | None = None
    lengths, allowed, rounding = ((0.1, 0.3, 0.03), 0.1, 1e-5) if narrow else ((1e-4, 1e-5, 1e-3, 1e-2), 1e-3, 1e-14)
    for length in lengths:
        form = (v @ few.gauss_newton_vp(theta, v)).item()
        total, level = 0.0, 0.0
        for batch, weight in few.examples.chunks(theta):
            ahead, at, behind = (_outputs_at(few, theta + step * v, batch[0]) for step in (length, 0.0, -length))
            values = [
                few._loss_at(_along(at, ahead, behind, share), batch[1], theta).item() for share in (0.5, 0.0, -0.5)
            ]
            total += (values[0] - 2 * values[1] + values[2]) / length**2 * few.examples.share(weight)
            level += abs(values[1]) * few.examples.share(weight)
        if abs(form - total) <= allowed * max(abs(form), abs(total)) + rounding * level / length**2:
            return None
        found = found or (form, total)
    return found


def _outputs_at(few: EmpiricalRisk, theta: Tensor, inputs: Any) -> Any:
    with few._point(theta, leaves=False) as point, few._values():
        return map_tensors(few._outputs(point, inputs), Tensor.detach)


def _along(at: Any, ahead: Any, behind: Any, share: float) -> Any:
    """Outputs + share (ahead - behind), of floating-point tensors in any structure."""
    following = zip(tensors_of(ahead), tensors_of(behind), strict=True)

    def move(own: Tensor) -> Tensor:
        one, other = next(following)
        return own + share * (one - other) if own.is_floating_point() else own

    return map_tensors(at, move)
