"""Networks by configuration. Every one is `Model(in_shape, out_features, *, width=1, ...)`."""

from hw1.models.budget import mlp_of_budget
from hw1.models.cnn import Cnn
from hw1.models.mlp import Mlp
from hw1.models.replicated import Replicated, members_of, replicate
from hw1.models.rnn import Rnn

__all__ = ["Cnn", "Mlp", "Replicated", "Rnn", "members_of", "mlp_of_budget", "replicate"]
