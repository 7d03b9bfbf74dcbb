"""What networks predict: whether it depends on the input at all, and how far off it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from hw1.measures.finite import finite, in_float64
from hw1.measures.protocol import Column, Finding, Measure, Subject

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hw1.kinds import Loss

TEST = "test.safetensors"


class Predictions(Measure):
    """Predictions on the training and the test set, in float64, where a dead network gives one number.

    `predictions/constant` is 1 where the predictions on the training inputs are all the same, as those of a network of
    dead ReLUs are (see `hw1.curvature.constant_predictor`), else 0. Where the targets are numbers, also the largest
    absolute error on the training set and the mean one on the test set, and in `test.safetensors` the first output on
    the test inputs: `predicted` [R, M], `true` [M], and `x` [M] where an input is a single number; float64.

    A member whose weights or loss are not finite is no constant predictor, and has no errors (NaN).
    """

    version: ClassVar[int] = 1
    columns: ClassVar[Mapping[str, Column]] = {
        "predictions/constant": Column("constant predictor"),
        "predictions/train_max_error": Column("largest training error", "unit of the target"),
        "predictions/test_mae": Column("mean absolute test error", "unit of the target"),
    }

    def take(self, subject: Subject, memory: Mapping[str, Tensor]) -> Finding:
        """The columns of every member, and the predictions on the test set."""
        import torch
        from safetensors.torch import save

        from hw1.curvature import constant_predictor

        data = subject.data
        numbers = data.kind == "values"
        values: dict[str, list[float]] = {name: [] for name in (self.columns if numbers else ["predictions/constant"])}
        predicted = []
        for net in map(in_float64, subject.end.nets):
            ends, errors = [], []  # of a batch's outputs: their range is that of all
            for x, y in data.batches("train"):  # one of data in memory
                train = outputs_of(net, subject.loss, x, y)
                ends += [train.amin(0), train.amax(0)]
                if numbers:
                    errors.append((train - y.to(train)).abs().max())
            values["predictions/constant"].append(float(constant_predictor(torch.stack(ends).flatten(1)[None])[0]))
            if numbers:
                values["predictions/train_max_error"].append(float(torch.stack(errors).max()))
                first, mean = [], 0.0
                for x, y in data.batches("test"):
                    test = outputs_of(net, subject.loss, x, y)
                    mean += float((test - y.to(test)).abs().mean()) * (len(x) / data.sizes["test"])
                    first.append(test.flatten(1)[:, 0].cpu())
                values["predictions/test_mae"].append(mean)
                predicted.append(torch.cat(first))
        if not numbers:
            return Finding(values)
        true = data.targets("test").flatten(1)[:, 0]
        file = {"predicted": torch.stack(predicted), "true": true.double().contiguous()}
        if data.in_shape == (1,):
            file["x"] = torch.cat([x[:, 0] for x, _ in data.batches("test")]).double().contiguous()
        return Finding(values, files={TEST: save(file)})


def outputs_of(net: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> Tensor:
    """Outputs [N, ...] of a network in evaluation mode, float64; NaN where its weights or loss are not finite."""
    import torch

    from hw1.risk.empirical import EmpiricalRisk

    if not finite(net, loss, [(x, y)]):
        return torch.full_like(y.double(), torch.nan) if y.is_floating_point() else torch.full((len(x), 1), torch.nan)
    risk = EmpiricalRisk(net, loss, [(x, y)], keep_graph=False)
    return risk.outputs(risk.theta.double())
