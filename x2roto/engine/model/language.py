"""The language half: stock Qwen3-VL of `transformers`, driven by embeddings the way the checkpoint was trained.

Two facts decide (wanghao9610/X2SAM@5b0b106 `model/x2sam.py`, `vlms/qwen3vl`): segmentation reads the output of
the last decoder layer *before* the final norm, and positions are 0, 1, 2, … on all three axes, images included.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from x2roto.engine.assembly import Spliced


@dataclass(frozen=True, slots=True)
class Visual:
    """What the vision tower makes of all patches: `rows` (n, D) for the sequence, `deepstack` added to the first
    layers at the same positions, each (n, D)."""

    rows: Tensor
    deepstack: tuple[Tensor, ...]

    def again(self, index_m: Tensor) -> Visual:
        """The rows of these numbers, in this order."""
        return Visual(self.rows[index_m], tuple(rows[index_m] for rows in self.deepstack))


@dataclass(frozen=True, slots=True)
class Written:
    """A generated answer: `ids` with the stop token if met, `states_bld` of the prompt and of every generated
    token but the last, which was never fed back."""

    ids: tuple[int, ...]
    states_bld: Tensor


Choose = Callable[[Tensor], int]


def likeliest(logits_v: Tensor) -> int:
    """Greedy choice of the next token from vocabulary logits (V,)."""
    return int(logits_v.argmax())


class LanguageModel(Qwen3VLForConditionalGeneration):
    """Qwen3-VL with its stock parameter names and three verbs of our own."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(Qwen3VLConfig(**config))

    @property
    def text_dim(self) -> int:
        """Width of the language model."""
        return self.lm_head.in_features

    def see(self, patches_np: Tensor, grid_thw: Tensor) -> Visual:
        """Vision rows of flattened patches; grids (clips, 3) in patches."""
        seen = self.model.visual(patches_np.to(self.model.visual.dtype), grid_thw=grid_thw)
        return Visual(seen.pooler_output, tuple(seen.deepstack_features))

    def think(self, prompt: Spliced, visual: Visual, cache: DynamicCache | None = None) -> Tensor:
        """States of the last layer before the final norm, (B, L, D), in one pass."""
        with self._before_final_norm() as states:
            self.model.language_model(
                inputs_embeds=prompt.embeds_bld,
                # Without padding no mask is needed, which leaves the causal kernels free to choose.
                attention_mask=None if prompt.attention_mask.all() else prompt.attention_mask,
                position_ids=prompt.position_ids.expand(3, -1, -1),
                cache=cache,
                use_cache=cache is not None,
                visual_pos_masks=prompt.visual_mask,
                deepstack_visual_embeds=list(visual.deepstack),
            )
        return states[0]

    def write(
        self,
        prompt: Spliced,
        visual: Visual,
        stop_ids: Collection[int],
        limit: int = 2048,
        choose: Choose = likeliest,
    ) -> Written:
        """Answer to one prompt (batch 1), at most `limit` tokens, ending with the stop token if met."""
        cache = DynamicCache(config=self.model.language_model.config)
        states = [self.think(prompt, visual, cache)]
        ids = [choose(self.logits(states[-1][0, -1]))]
        while ids[-1] not in stop_ids and len(ids) < limit:
            states.append(self._feed(ids[-1], cache))
            ids.append(choose(self.logits(states[-1][0, -1])))
        return Written(tuple(ids), torch.cat(states, dim=1))

    def logits(self, states_bld: Tensor) -> Tensor:
        """Vocabulary logits of last-layer states."""
        return self.lm_head(self.model.language_model.norm(states_bld))

    def _feed(self, token: int, cache: DynamicCache) -> Tensor:
        embeds = self.get_input_embeddings()(torch.tensor([[token]], device=self.device))
        position = torch.full((3, 1, 1), cache.get_seq_length(), device=self.device)
        with self._before_final_norm() as states:
            self.model.language_model(inputs_embeds=embeds, position_ids=position, cache=cache, use_cache=True)
        return states[0]

    @contextmanager
    def _before_final_norm(self) -> Iterator[list[Tensor]]:
        states: list[Tensor] = []
        norm = self.model.language_model.norm
        handle = norm.register_forward_pre_hook(lambda _, args: states.append(args[0]))
        try:
            yield states
        finally:
            handle.remove()
