"""Networks by configuration. Every one is `Model(in_shape, out_features, *, width=1, ...)`."""

from hw1.models.cnn import Cnn
from hw1.models.gpt import Gpt
from hw1.models.members import Members, members_of, side_by_side
from hw1.models.mlp import Mlp
from hw1.models.resnet import ResNet
from hw1.models.rnn import Rnn
from hw1.models.sized_mlp import mlp_of_budget, mlp_of_size

__all__ = [
    "Cnn",
    "Gpt",
    "Members",
    "Mlp",
    "ResNet",
    "Rnn",
    "members_of",
    "mlp_of_budget",
    "mlp_of_size",
    "side_by_side",
]
