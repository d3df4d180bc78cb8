"""Class logits to scores: one row per query, one column per condition."""

from __future__ import annotations

import torch
from torch import Tensor

from x2roto.engine.assembly import IGNORED_LABEL, NONE

BACKGROUND_LABEL = NONE


def softmax_scores(class_logits_qc: Tensor) -> Tensor:
    """Scores (Q, C) in [0, 1] of class logits (Q, C + 1) whose last column is the background."""
    return class_logits_qc.float().softmax(-1)[:, :-1]


def flat_scores(token_logits_qn: Tensor, cond_ids_n: Tensor, *, root: bool) -> Tensor:
    """Scores (Q, C) of logits per condition token (Q, N): sigmoids averaged over each condition.

    For models that classify against every token of a phrase and have no background row. `root` takes the
    square root, as the reference does for panoptic, instance, VGD and interactive but for no other task.
    """
    scores = token_logits_qn.float().sigmoid() @ condition_average(cond_ids_n).T
    return scores.sqrt() if root else scores


def condition_average(cond_ids_n: Tensor, *, training: bool = False) -> Tensor:
    """The matrix (K, N) float32 that averages N tokens by condition.

    Rows are the conditions in ascending order, then the ignored tokens (-100) when `training`, then the
    background (-1), each if present; there are none at all without a condition. Source:
    wanghao9610/X2SAM@5b0b106 `x2sam/x2sam/dataset/utils/process.py`, `cond_id_postprocess`.
    """
    present: Tensor = cond_ids_n.unique()
    special = (present == IGNORED_LABEL) | (present == BACKGROUND_LABEL)
    order = present[~special]
    if len(order):
        trailing = (IGNORED_LABEL, BACKGROUND_LABEL) if training else (BACKGROUND_LABEL,)
        order = torch.cat((order, *(present[present == label] for label in trailing)))
    members = (order[:, None] == cond_ids_n).float()
    # The small constant is the reference's; it is part of the scores.
    return members / (members.sum(-1, keepdim=True) + 1e-6)
