from torch import Tensor
from torch.nn.functional import cross_entropy


def poly(outputs: Tensor, targets: Tensor, reduction: str = "mean", epsilon: float = 1.0) -> Tensor:
    """-log p + epsilon (1 - p), p of the true class (Leng et al. 2022, Poly-1): outputs [B, C], targets [B]."""
    minus_log_p = cross_entropy(outputs, targets, reduction="none")  # [B]
    losses = minus_log_p + epsilon * (1 - (-minus_log_p).exp())
    return {"mean": losses.mean, "sum": losses.sum, "none": lambda: losses}[reduction]()
