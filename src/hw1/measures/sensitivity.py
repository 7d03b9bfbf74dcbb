"""How fast a network changes with its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from hw1.measures.protocol import Column, Finding, Measure, Subject
from hw1.stages import through

if TYPE_CHECKING:
    from torch import Tensor


class Sensitivity(Measure):
    """Mean Frobenius norms of derivatives by the input, over all test examples, in evaluation mode.

    Per unit of the input as the network gets it. `sensitivity/loss` is that of each example's loss;
    `sensitivity/softmax` of the class probabilities (Novak et al. 2018) and `sensitivity/logits` of the outputs. In
    regression there is no softmax, and the outputs' is `sensitivity/outputs`. See `hw1.landscape.sensitivity`.

    Where inputs are tokens, which are no numbers, there is `sensitivity/loss` alone, per unit of the embedding: see
    `hw1.landscape.token_sensitivity`. The outputs' would take a backward pass for each token of each position.
    """

    version: ClassVar[int] = 1
    columns: ClassVar[Mapping[str, Column]] = {
        "sensitivity/loss": Column("sensitivity of the loss"),
        "sensitivity/softmax": Column("sensitivity of the softmax"),
        "sensitivity/logits": Column("sensitivity of the logits"),
        "sensitivity/outputs": Column("sensitivity of the outputs"),
    }

    def take(self, subject: Subject, memory: Mapping[str, Tensor]) -> Finding:
        """The columns of every member."""
        from hw1.landscape import sensitivity, token_sensitivity

        data = subject.data
        size = data.sizes["test"]
        values: dict[str, list[float]] = {}
        for net in through(subject.end.nets, len(subject.end.nets)):
            means: dict[str, float] = {}
            for x, y in data.batches("test"):  # one of data in memory
                if x.is_floating_point():
                    found = sensitivity(net, subject.loss, x, y, batch_size=data.eval_batch_size, kind=data.kind)
                    of = {"loss": found.loss, "softmax": found.softmax}
                    of["outputs" if found.softmax is None else "logits"] = found.outputs
                else:
                    of = {"loss": token_sensitivity(net, subject.loss, x, y, batch_size=data.eval_batch_size)}
                for name, mean in of.items():
                    if mean is not None:
                        means[name] = means.get(name, 0.0) + mean * (len(x) / size)
            for name, mean in means.items():
                values.setdefault(f"sensitivity/{name}", []).append(mean)
        return Finding(values)
