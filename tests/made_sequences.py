"""Short sequences of tokens with one class each: how many of them are the token 0."""

import torch

from hw1.data.protocol import TrainTest


class MadeSequences:
    """Sequences [N, 4] of tokens 0 to 6, of the classes none, one, and more."""

    kind = "classes"
    name = "made_sequences"
    source = "made"
    in_shape, out_features = (4,), 3

    def prepare(self) -> None:
        """Nothing to do."""

    def identity(self) -> str:
        return "sequences"

    def load(self) -> TrainTest:
        x = torch.randint(7, (40, 4), generator=torch.Generator().manual_seed(0))
        y = (x == 0).sum(1).clamp(max=2)
        return TrainTest(x[:28], y[:28], x[28:], y[28:])
