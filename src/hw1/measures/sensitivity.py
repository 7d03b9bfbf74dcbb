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
        if not (tokens := data.test_tensors[0]).is_floating_point():
            return Finding(
                {
                    "sensitivity/loss": [
                        token_sensitivity(
                            net, subject.loss, tokens, data.test_tensors[1], batch_size=data.eval_batch_size
                        )
                        for net in through(subject.end.nets, len(subject.end.nets))
                    ]
                }
            )
        found = [
            sensitivity(net, subject.loss, *data.test_tensors, batch_size=data.eval_batch_size, kind=data.kind)
            for net in through(subject.end.nets, len(subject.end.nets))
        ]
        values = {"sensitivity/loss": [one.loss for one in found]}
        softmax = [one.softmax for one in found if one.softmax is not None]
        if softmax:
            values["sensitivity/softmax"] = softmax
        values[f"sensitivity/{'logits' if softmax else 'outputs'}"] = [one.outputs for one in found]
        return Finding(values)
