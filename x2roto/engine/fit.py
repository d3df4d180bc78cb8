"""What tells an object from what surrounds it in its own shot: a linear score of all that the eyes see of a cell.

Found by least squares from the frames so far, in closed form and anew on every frame, beside the likest places (the
target model of Robinson et al., arXiv 2003.00908, which is fitted by steps of descent).
"""

from __future__ import annotations

import torch
from torch import Tensor

# What is added to each feature's square, as a share of it: with less a few cells would tell too much.
RIDGE = 0.003
LEAST = 1e-6  # for features that are nowhere


@torch.no_grad()
def sums(cells_bnf: Tensor, cover_bn: Tensor) -> Tensor:
    """What a score is found from, (B, F, F + 1) float32: products of the F features of n cells with each other and
    with what is to be told, of B objects that cover the cells by `cover_bn` in [0, 1]. An object counts as much as
    its surroundings, however large."""
    cells, cover = cells_bnf.float(), cover_bn.float()
    inside, outside = (side / side.sum(1, keepdim=True).clamp(min=1) for side in (cover, 1 - cover))
    with _precise(cells):
        return (cells * (inside + outside)[..., None]).mT @ torch.cat([cells, (2 * cover - 1)[..., None]], dim=-1)


@torch.no_grad()
def score(sums_bff: Tensor, cells_bnf: Tensor) -> Tensor:
    """How much each cell is the object, (B, n) in [-1, 1]: 1 for it, -1 for what surrounds it."""
    products, told = sums_bff[..., :-1], sums_bff[..., -1:]
    squares = products.diagonal(dim1=-2, dim2=-1)
    with _precise(cells_bnf):
        # Asks a GPU nothing that must be waited for, as `cholesky` would.
        factor, _ = torch.linalg.cholesky_ex(products + torch.diag_embed(RIDGE * squares + LEAST))
        return (cells_bnf.float() @ torch.cholesky_solve(told, factor))[..., 0].clamp(-1, 1)


def _precise(tensor: Tensor) -> torch.autocast:
    """Numbers as they are: in fewer bits, sums of squares have no root."""
    return torch.autocast(tensor.device.type, enabled=False)
