"""AdamW that steps hidden matrices as Muon does: Jordan et al., https://kellerjordan.github.io/posts/muon, as long as
AdamW's steps (arXiv 2502.16982, section 2.2), so that one rate and one decay fit both.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

MOMENTUM = 0.95
ADAMW_RMS = 0.2  # what the entries of AdamW's steps usually have, in rates
ITERATIONS = 5  # of Newton and Schulz
POLYNOMIAL = (3.4445, -4.7750, 2.0315)  # odd, of singular values: steepest at 0, and near 1 from there to 1


class Muon(AdamW):
    """Groups whose `orthogonal` is true step by the orthogonal matrix nearest to the mean of their gradients; all
    others are AdamW's. A convolution's kernel is a matrix with a row per output channel."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step, and drop the gradients of orthogonal groups."""
        for group in self.param_groups:
            if group["orthogonal"]:
                self._step_orthogonally(group)
        # AdamW passes over what has no gradient.
        super().step()

    def _step_orthogonally(self, group: dict[str, Any]) -> None:
        alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                push = self._push(parameter)
                alike[push.shape].append((parameter, push))
                parameter.grad = None
        for shape, pairs in alike.items():
            rate = ADAMW_RMS * max(shape) ** 0.5 * group["lr"]
            turned = orthogonalised(torch.stack([push for _, push in pairs]))
            for (parameter, _), way in zip(pairs, turned, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(way.view_as(parameter), alpha=rate)

    def _push(self, parameter: Tensor) -> Tensor:
        """Nesterov's momentum, a matrix."""
        state = self.state[parameter]
        if not state:
            # AdamW looks for a count in whatever has a state.
            state.update(step=torch.zeros(()), mean=torch.zeros_like(parameter))
        assert parameter.grad is not None
        mean = state["mean"].lerp_(parameter.grad, 1 - MOMENTUM)
        return parameter.grad.lerp(mean, MOMENTUM).flatten(1)


def orthogonalised(matrices_bmn: Tensor) -> Tensor:
    """Matrices (B, m, n) with all their singular values brought near 1, in [0.6, 1.3] but for the smallest; float32.

    Computed in bfloat16, which that many iterations bear.
    """
    tall = matrices_bmn.shape[1] > matrices_bmn.shape[2]
    x = (matrices_bmn.mT if tall else matrices_bmn).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    first, third, fifth = POLYNOMIAL
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = first * x + (third * square + fifth * square @ square) @ x
    turned: Tensor = (x.mT if tall else x).float()
    return turned
