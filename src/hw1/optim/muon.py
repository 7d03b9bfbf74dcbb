"""Muon for matrices, AdamW for everything else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz steps (Jordan et al. 2024) on matrices, AdamW on the rest.

    What is no matrix (biases, norms, convolutions) and what a group gives `muon: false` (embeddings and heads, which
    Jordan et al. leave out) goes to AdamW. Both have one learning rate: Muon's step is scaled to the root mean square
    of AdamW's (Liu et al. 2025, eq. 4).

    Args:
        params: parameters, named ones, or groups.
        lr: of both.
        weight_decay: of both, decoupled.
        momentum: of Muon, with Nesterov's step.
        betas, eps: of AdamW.
        muon: whether matrices get Muon; of a group.

    Raises:
        ValueError: what torch.optim.Muon or AdamW refuses.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        betas: list[float] | tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        muon: bool = True,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "muon": muon})
        parts: list[dict[str, Any]] = []
        for group in self.param_groups:
            names = group.get("param_names", [None] * len(group["params"]))
            pairs = list(zip(names, group["params"], strict=True))
            for matrix in (True, False):
                own = [(name, p) for name, p in pairs if (p.ndim == 2 and group["muon"]) == matrix]
                if own:
                    named = [p for _, p in own] if own[0][0] is None else own
                    parts.append(
                        {"params": named, "lr": group["lr"], "weight_decay": group["weight_decay"], "muon": matrix}
                    )
        matrices, others = ([part for part in parts if part["muon"] is on] for on in (True, False))
        self._muon = (
            torch.optim.Muon(matrices, lr, weight_decay, momentum, adjust_lr_fn="match_rms_adamw") if matrices else None
        )
        self._adamw = torch.optim.AdamW(others, lr, (betas[0], betas[1]), eps, weight_decay) if others else None
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    @property
    def _parts(self) -> list[torch.optim.Optimizer]:
        return [part for part in (self._muon, self._adamw) if part is not None]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:  # a checkpoint, or a change of the objective, has put others in their place
            part.param_groups = [group for group in self.param_groups if group["muon"] is (part is self._muon)]
            part.state = self.state
            part.step()
        return loss
