"""X2SAM: a language model that reads a clip and a prompt, and a segmentor its states condition.

Paper arXiv 2605.00891; wanghao9610/X2SAM@5b0b106 `model/x2sam.py`. The parameter names are the checkpoint's, with
the language model's under `vlm.` as `transformers` names them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from x2roto.engine.assembly import Conditions, Spliced, pool, splice
from x2roto.engine.model.config import ModelConfig
from x2roto.engine.model.finder import MOST_WORDS, Finder, Found
from x2roto.engine.model.language import LanguageModel, Visual
from x2roto.engine.model.outliner import Outliner, Sight
from x2roto.engine.model.projectors import Projector, fold
from x2roto.engine.model.region_sampler import region_tokens
from x2roto.engine.model.segmentor import Segmentor


class X2SAM(nn.Module):
    """The whole network, stateless: memory and conversations are values handed in."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vlm = LanguageModel(config.language)
        self.segmentor = Segmentor(config)
        text_dim = self.vlm.text_dim
        self.extra_projector = Projector(config.encoder.embed_dims[-2] * 4, text_dim)
        self.mlm_projector = Projector(text_dim, config.dim)
        self.bg_embeds = nn.Embedding(1, config.dim)
        self.finder = Finder(config.finder, text_dim) if config.finder.dim else None
        self.outliner = Outliner(config.outliner, config.finder.dim) if config.outliner.dim else None

    def find(
        self, pixels_bchw: Tensor, ids_pl: Tensor, valid_pl: Tensor, pictures_p: Tensor, together: int = 0
    ) -> Found:
        """What phrases of token ids (P, L), as far as `valid_pl` says, mean in those of the pictures (B, 3, S, S)
        that they are about; `together` as `Finder` takes it."""
        assert self.finder is not None
        words, valid = self._spelt(ids_pl, valid_pl)
        return self.finder(pixels_bchw, words, valid, pictures_p, together)

    def liken(self, pixels_bchw: Tensor, ids_pl: Tensor, valid_pl: Tensor) -> Tensor:
        """How far every cell of all pictures is like each of P phrases, as `Finder.liken`."""
        assert self.finder is not None
        return self.finder.liken(pixels_bchw, *self._spelt(ids_pl, valid_pl))

    def _spelt(self, ids_pl: Tensor, valid_pl: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of phrases' tokens, of no more than a finder reads, and which of them are real."""
        ids, valid = ids_pl[:, :MOST_WORDS], valid_pl[:, :MOST_WORDS]
        return self.vlm.get_input_embeddings()(ids), valid

    def look(self, pixels_bchw: Tensor) -> Sight:
        """What the outliner sees of windows (B, 3, S, S)."""
        assert self.finder is not None
        assert self.outliner is not None
        return self.outliner.look(self.finder.eyes(pixels_bchw))

    def region_map(self, region_bhwc: Tensor) -> Tensor:
        """Third-stage features as language-wide maps (B, h / 2, w / 2, D)."""
        return self.extra_projector(fold(region_bhwc))

    def region_rows(self, map_hwc: Tensor, points_rn2: Tensor) -> Tensor:
        """Language rows of regions on one frame, (regions, points / pool, D)."""
        return region_tokens(map_hwc, points_rn2, self.config.region.pool)

    def assemble(
        self,
        input_ids: Tensor,
        visual: Visual,
        regions: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        cond_ids: Tensor | None = None,
        seg_ids: Tensor | None = None,
    ) -> Spliced:
        """The embedded sequence with vision rows and region rows (R, K, D) in place of their markers."""
        return splice(
            self.vlm.get_input_embeddings(),
            input_ids,
            visual.rows,
            regions,
            attention_mask=attention_mask,
            cond_ids=cond_ids,
            seg_ids=seg_ids,
        )

    def conditions(self, states_bld: Tensor, cond_ids: Tensor, seg_ids: Tensor, *, shared: bool) -> Conditions:
        """Language states to what the mask decoder reads; a learned background row comes last."""
        background = self.bg_embeds.weight
        return pool(self.mlm_projector(states_bld), cond_ids, seg_ids, background, shared=shared)

    @property
    def device(self) -> torch.device:
        return self.bg_embeds.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.bg_embeds.weight.dtype
