"""How flat a network is: how fast it changes with its inputs (sensitivity), its loss with the weights (sharpness)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hw1.kinds import Kind, has_accuracy, hits, kind_of
from hw1.landscape.own_losses import MeanOverExamples, check_alone, outputs_of_first
from hw1.risk.guard import differentiable, own_copy, random_state_kept
from hw1.risk.nested import cast
from hw1.risk.protocol import Risk

SHARES = (1.0, 0.5, 0.25, 0.125, 0.0625)  # of the way to a corner, tried in this order
LEAST_GAIN = 1e-3  # relative to the rise so far: with less, an ascent ends


@dataclass(frozen=True)
class InputSensitivity:
    """Mean Frobenius norms of derivatives by the input, over examples; per unit of the network's input.

    Attributes:
        loss: of each example's loss, a gradient: [D].
        outputs: of the network's outputs (logits, for classes), a Jacobian: [C, D].
        softmax: of the class probabilities (Novak et al. 2018), those of both classes where targets are binary; None
            where outputs are no logits.
    """

    loss: float
    outputs: float
    softmax: float | None


def sensitivity(
    module: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    targets: Tensor,
    *,
    batch_size: int = 250,
    kind: Kind | None = None,
) -> InputSensitivity:
    """Sensitivity of a network to its inputs, in evaluation mode: E |d f(x) / d x|_F (Novak et al. 2018).

    Never a derivative by parameters. One backward pass an output gives the Jacobian J [C, D] of each example; the
    gradient of the loss and the Jacobian of softmax follow from it by the chain rule. Computed on a copy of the module,
    in its dtype and on its device: the caller's, its inputs and the random state are left alone.

    An example's own loss is taken to be its part of the mean. That the loss is such a mean, and that examples do not
    influence each other, is looked at on all of the data, on outputs that are there already.

    Args:
        module: [B, ...] -> outputs [B, ...]; in evaluation mode its examples must not influence each other.
        loss: (outputs, targets) -> mean loss over the B examples, [].
        inputs: [N, ...], floating point.
        targets: [N, ...]
        batch_size: examples at a time; it changes memory (C times the inputs) and speed, not results.
        kind: what targets are, see `hw1.kinds.loss_of`: outputs are logits of "classes" [B, C], of "tokens" [B, T, V],
            of "binary" targets one each. Unless given, what shapes leave no doubt about (`hw1.kinds.kind_of`); with one
            output an integer target there is no softmax: it may be a logit ("binary") or a count.

    Raises:
        ValueError: no examples, unequal lengths, inputs that are not floating point, shapes that do not fit, a loss
            that is no mean over examples, examples that influence each other, or outputs that are not as `kind` says.

    Example:
        >>> net = nn.Linear(2, 1, bias=False)
        >>> _ = net.weight.data.copy_(torch.tensor([[3.0, 4.0]]))  # its gradient is 5 long everywhere
        >>> x = torch.randn(7, 2)
        >>> round(sensitivity(net, nn.functional.mse_loss, x, net(x).detach() + 1).outputs, 5)
        5.0
    """
    if len(inputs) == 0 or len(inputs) != len(targets):
        raise ValueError(
            f"inputs and targets: got {len(inputs)} and {len(targets)} examples, expected as many, > 0: give each "
            "input a target"
        )
    if not inputs.is_floating_point():
        raise ValueError(f"inputs: got {inputs.dtype}, expected floating point: sensitivity is a derivative by them")
    network = own_copy(module)
    like = next(network.parameters(), inputs)
    with differentiable(like.device, network), random_state_kept(like.device):
        first = outputs_of_first(network, loss, *cast((inputs[:2], targets[:2]), like))
        logits = kind_of(first, targets[: len(first)]) if kind is None else kind
        totals, check_mean = torch.zeros(3, dtype=torch.float64), MeanOverExamples(loss)
        batches = zip(torch.split(inputs, batch_size), torch.split(targets, batch_size), strict=True)
        for number, (x, y) in enumerate(batches):
            x, y = cast((x.detach().clone(), y), like)
            x.requires_grad_()
            outputs = network(x.clone())  # a first layer may work in place
            _check_outputs(outputs, y, logits)
            if number == 0:
                check_alone(network, x.detach(), outputs)
            check_mean(outputs, y)
            jacobian = _jacobian(outputs.reshape(len(x), -1), x)  # [B, C, D]
            slope = _slope(loss, outputs.detach().clone(), y)  # [B, C]
            rows = [slope[:, None] @ jacobian, jacobian]
            if logits in SOFTMAX:
                rows.append(SOFTMAX[logits](outputs.detach(), jacobian))
            for form, derivative in enumerate(rows):
                totals[form] += derivative.flatten(1).norm(dim=1).cpu().double().sum()
        means = (totals / len(inputs)).tolist()
    return InputSensitivity(means[0], means[1], means[2] if logits in SOFTMAX else None)


def _of_softmax(outputs: Tensor, jacobian: Tensor) -> Tensor:
    """Derivative of the class probabilities: outputs [B, ..., C], jacobian [B, (...) C, D] -> [B, ..., C, D]."""
    jacobian = jacobian.reshape(*outputs.shape, -1)
    p = outputs.softmax(-1)[..., None]  # d p_c = p_c (d z_c - sum_k p_k d z_k)
    return p * (jacobian - p.mT @ jacobian)


def _of_sigmoid(outputs: Tensor, jacobian: Tensor) -> Tensor:
    """Derivative of both class probabilities p and 1 - p of each logit: [B, C], jacobian [B, C, D] -> [B, 2, C, D]."""
    p = outputs.sigmoid().reshape(len(outputs), -1, 1)
    one = p * (1 - p) * jacobian
    return torch.stack([one, -one], 1)


SOFTMAX: dict[Kind | None, Callable[[Tensor, Tensor], Tensor]] = {
    "classes": _of_softmax, "tokens": _of_softmax, "binary": _of_sigmoid
}  # fmt: skip


def _check_outputs(outputs: Tensor, targets: Tensor, kind: Kind | None) -> None:
    if kind == "classes" and outputs.ndim != 2:
        raise ValueError(f"module: got outputs {list(outputs.shape)}, expected logits [B, C] for classes: flatten them")
    if kind is not None and has_accuracy(kind):
        hits(kind, outputs.detach(), targets)  # refuses other shapes


def _jacobian(outputs: Tensor, x: Tensor) -> Tensor:
    """Derivative of outputs [B, C] by x [B, ...], example by example: [B, C, D]. One sum over examples serves all."""
    rows = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0].flatten(1) for column in outputs.unbind(1)]
    return torch.stack(rows, 1)


def _slope(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor) -> Tensor:
    """Gradient of each example's own loss by its outputs, [B, C]."""
    outputs = outputs.requires_grad_()
    return torch.autograd.grad(loss(outputs, targets) * len(outputs), outputs)[0].reshape(len(outputs), -1)


@dataclass(frozen=True)
class BoxRise:
    """How far the loss rises in a box around theta, as found by several ascents.

    Attributes:
        value: the measure, made of the highest rise: a lower bound, as the maximum over the box is at least that.
        loss: f(theta).
        rises: f(theta + y) - f(theta) at the end of each ascent, [starts]; how far they differ says how well the
            maximum was found.
    """

    value: float
    loss: float
    rises: tuple[float, ...]


def keskar_sharpness(
    risk: Risk, theta: Tensor, epsilon: float, *, starts: int = 3, steps: int = 20, generator: torch.Generator
) -> BoxRise:
    """100 (max f(theta + y) - f(theta)) / (1 + f(theta)) over the box |y_i| <= epsilon (|theta_i| + 1).

    Metric 2.1 of Keskar et al. 2017, in the full space; their epsilons are 1e-3 and 5e-4. Conditional gradient takes
    the place of their ten iterations of L-BFGS-B: SciPy's, in units of the box, found less than 2% of the same rise on
    a small CNN. Rescaling layers of a ReLU network leaves its function alone and makes of this measure, as of the
    Hessian's eigenvalues, anything (Dinh et al. 2017): see `adaptive_sharpness`.

    Args:
        risk: f.
        theta: [P], the centre.
        epsilon: half the width of the box, relative to |theta_i| + 1.
        starts: ascents, from random points of the box; the highest counts.
        steps: gradients an ascent, at most; it ends earlier where it gains less than 0.1%, mostly within 10.
        generator: for the starts.

    Raises:
        ValueError: epsilon, starts or steps is not positive, or f(theta) is not a finite number above -1.

    Example:
        >>> class Bowl:  # f = sum theta_i^2 / 2: at its minimum, the maximum is in the corners, 4 (1e-3)^2 / 2
        ...     def __call__(self, theta):
        ...         return theta.square().sum() / 2
        ...
        ...     def gradient(self, theta):
        ...         return theta
        >>> result = keskar_sharpness(Bowl(), torch.zeros(4).double(), 1e-3, generator=torch.Generator())
        >>> round(result.value, 9)
        0.0002
    """
    _check_positive(epsilon=epsilon)
    loss = _loss_at(risk, theta)
    if loss <= -1:
        raise ValueError(
            f"risk: got a loss of {loss:.6g} at theta, expected one above -1: the rise is measured in 1 + loss, made "
            "for losses of at least 0; use adaptive_sharpness"
        )
    rises = _ascend(risk, theta, loss, epsilon * (theta.abs() + 1), starts, steps, generator)
    return BoxRise(100 * _highest(rises) / (1 + loss), loss, rises)


def adaptive_sharpness(
    risk: Risk, theta: Tensor, rho: float, *, starts: int = 3, steps: int = 20, generator: torch.Generator
) -> BoxRise:
    """Max f(theta + y) - f(theta) over the box |y_i| <= rho |theta_i|, in the unit of the loss.

    Adaptive sharpness (Kwon et al. 2021) with the maximum norm, the worst case of Andriushchenko et al. 2023, who take
    rho from 1e-3 to 8e-3 for ResNets, 1,024 examples and 20 steps. The box scales with the weights, so rescaling the
    layers of a ReLU network changes nothing.

    Args:
        risk: f.
        theta: [P], the centre.
        rho: half the width of the box, relative to |theta_i|.
        starts: ascents, from random points of the box; the highest counts.
        steps: gradients an ascent, at most; it ends earlier where it gains less than 0.1%, mostly within 10.
        generator: for the starts.

    Raises:
        ValueError: rho, starts or steps is not positive, or f(theta) is not a finite number.
    """
    _check_positive(rho=rho)
    loss = _loss_at(risk, theta)
    rises = _ascend(risk, theta, loss, rho * theta.abs(), starts, steps, generator)
    return BoxRise(_highest(rises), loss, rises)


def _loss_at(risk: Risk, theta: Tensor) -> float:
    """f(theta), from which rises are measured."""
    loss = risk(theta.detach()).item()
    if not math.isfinite(loss):
        raise ValueError(f"risk: got a loss of {loss} at theta, expected a finite number: did training diverge?")
    return loss


def _ascend(
    risk: Risk, theta: Tensor, loss: float, box: Tensor, starts: int, steps: int, generator: torch.Generator
) -> tuple[float, ...]:
    """The rises above the loss f(theta) that ascents over |y_i| <= box_i [P] come to.

    Conditional gradient (Frank & Wolfe 1956): to the corner that the gradient points to if f rises by that, else half
    the way, and so on. In units of the box its path depends on f alone, not on how theta is scaled. It starts anywhere
    in the box: at a minimum the gradient in the centre is zero, and there may be several maxima.
    """
    _check_positive(starts=starts, steps=steps)
    theta, box = theta.detach(), box.detach()

    def rise_at(y: Tensor) -> float:
        return risk(theta + y).item() - loss

    rises = []
    for _ in range(starts):
        y = box * (2 * torch.rand(theta.shape, generator=generator, device=generator.device) - 1).to(box)
        rise = rise_at(y)
        for _ in range(steps):
            if not math.isfinite(rise):
                break
            way = box * risk.gradient(theta + y).sign() - y
            trials = ((share, rise_at(y + share * way)) for share in SHARES)
            share, higher = next((trial for trial in trials if trial[1] > rise), (0.0, rise))
            y, gain, rise = y + share * way, higher - rise, higher
            if gain <= LEAST_GAIN * abs(rise):
                break
        rises.append(rise)
    return tuple(rises)


def _highest(rises: tuple[float, ...]) -> float:
    return math.nan if any(map(math.isnan, rises)) else max(rises)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name}: got {value}, expected a positive number: give a finite one above 0")
