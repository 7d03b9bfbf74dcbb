import torch
from torch.func import functional_call, jacrev, vmap

from hw1.measures import Column, Finding, Measure


class FisherTrace(Measure):
    """Trace of a classifier's Fisher information, mean over training examples: E |d log p(y|x) / d theta|^2, y ~ p."""

    version = 1
    columns = {"fisher/trace": Column("trace of the Fisher information")}
    limits = {"examples": "measured"}

    def __init__(self, examples: int) -> None:
        if examples < 1:
            raise ValueError(f"examples: got {examples}, expected a positive integer")
        self.examples = examples

    def take(self, subject, memory):
        """One number a member."""
        x = subject.data.train_tensors[0][: self.examples]
        traces = []
        for net in subject.end.nets:

            def log_p(parameters, one, net=net):
                return functional_call(net, parameters, (one[None],))[0].log_softmax(0)  # [C]

            parameters = {name: value.detach() for name, value in net.named_parameters()}
            slopes = vmap(jacrev(log_p), (None, 0))(parameters, x)  # {name: [N, C, *shape]}
            squares = sum(slope.flatten(2).square().sum(2) for slope in slopes.values())  # [N, C]
            with torch.no_grad():
                traces.append((net(x).softmax(1) * squares).sum(1).mean().item())
        return Finding({"fisher/trace": traces})
