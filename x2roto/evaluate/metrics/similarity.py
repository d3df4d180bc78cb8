"""How alike texts are to BERT, as the recall of grounded description needs it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from x2roto.errors import ModelError
from x2roto.evaluate.metrics.grounded import Similarity, Table

NAME = "bert-base-uncased"


def bert_similarity(model: str | Path = NAME) -> Similarity:
    """Cosine of the mean last states of BERT, special tokens included (wanghao9610/X2SAM@5b0b106
    x2sam/evaluation/evaluators/img_gcgseg_evaluator.py).

    `model`: a folder, or a name that transformers finds in its cache or on the net. Raises ModelError when it cannot.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"the text model {str(model)!r} cannot be loaded ({reason}): give its folder") from error

    @cache
    def embedded(text: str) -> NDArray[np.float64]:
        tokens = tokenizer(text, return_tensors="pt", max_length=512, truncation=True)
        with torch.inference_mode():
            mean = network(**tokens).last_hidden_state[0].mean(0).double()
        unit: NDArray[np.float64] = (mean / mean.norm()).numpy()
        return unit

    def similarity(first: Sequence[str], second: Sequence[str]) -> Table:
        rows, columns = (np.stack([embedded(text) for text in texts]) for texts in (first, second))
        alike: Table = rows @ columns.T
        return alike

    return similarity
