"""Finds what words mean in one picture, for networks too small to find it through their queries.

In X2SAM words reach the masks through the language model and the queries, which takes millions of phrases to learn.
A finder has eyes of its own, which learn nothing but names: cells of the picture whose features are like a phrase
(open-vocabulary, as CLIP, arXiv 2103.00020), then a few transformer layers over cells and words for what a name does
not tell (which of several, where, how large). What it finds is followed as if somebody had outlined it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from x2roto.engine.model.config import FinderConfig
from x2roto.engine.model.encodings import sine_tokens

MOST_WORDS = 48  # tokens of a phrase; what is longer loses its end
FINE = 24  # channels in which a phrase's mask is drawn


@dataclass(frozen=True, slots=True)
class Found:
    """What P phrases mean: `match_phw`, logits at stride 8 of how far a cell is like the phrase; `mask_phw`, logits
    at stride 4 of what is meant; `presence_p`, logit that something is."""

    match_phw: Tensor
    mask_phw: Tensor
    presence_p: Tensor


class Finder(nn.Module):
    """Eyes, a reader of phrases, and layers that look at both."""

    def __init__(self, config: FinderConfig, word_dim: int) -> None:
        super().__init__()
        dim = config.dim
        self.eyes = Eyes(config.widths, config.blocks, dim)
        self.words = WordEncoder(config, word_dim)
        self.names = nn.Conv2d(dim, dim, 1)
        self.scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-4.0))
        self.cells = nn.Conv2d(dim, dim, 1)
        self.likeness = nn.Linear(1, dim)
        self.film = nn.Linear(dim, 2 * dim)
        self.layers = nn.ModuleList(_layer(config) for _ in range(config.layers))
        self.layer_norm = nn.LayerNorm(dim)
        self.presence = nn.Linear(dim, 1)
        self.fine = nn.Conv2d(dim, FINE, 1)
        self.meant = nn.Linear(dim, FINE)
        self.draw = nn.Sequential(
            nn.Conv2d(FINE + 1, FINE, 3, padding=1), nn.GELU(), nn.Conv2d(FINE, FINE, 3, padding=1), nn.GELU()
        )
        self.mask = nn.Conv2d(FINE, 1, 1)

    def forward(
        self, pixels_bchw: Tensor, words_plw: Tensor, valid_pl: Tensor, pictures_p: Tensor, together: int = 0
    ) -> Found:
        """`pixels_bchw`: normalised pictures. `words_plw`: embeddings of each phrase's tokens, as far as `valid_pl`
        says. `pictures_p`: which picture each phrase is about. `together`: most phrases at once, 0 for all; the
        pictures are looked at once."""
        levels, size = self.eyes(pixels_bchw), together or len(words_plw)
        split = zip(words_plw.split(size), valid_pl.split(size), pictures_p.split(size), strict=True)
        parts = [self._found(levels, *part) for part in split]
        return Found(*(torch.cat([getattr(part, each.name) for part in parts]) for each in fields(Found)))

    def liken(self, pixels_bchw: Tensor, words_plw: Tensor, valid_pl: Tensor) -> Tensor:
        """How far every cell of every picture is like every phrase: logits (B, P, h, w) at stride 8. As above, but
        that phrases are about no picture of their own."""
        _, middle, _ = self.eyes(pixels_bchw)
        _, phrases = self.words(words_plw, valid_pl)
        names = F.normalize(self.names(middle), dim=1)
        cosine = torch.einsum("bchw,pc->bphw", names, F.normalize(phrases, dim=-1))
        return self._sureness(cosine)

    def _found(
        self, levels_bchw: tuple[Tensor, ...], words_plw: Tensor, valid_pl: Tensor, pictures_p: Tensor
    ) -> Found:
        finest, middle, coarse = levels_bchw
        tokens, phrases = self.words(words_plw, valid_pl)
        match = self._match(middle, phrases, pictures_p)
        read, presence = self._read(coarse, match, tokens, phrases, valid_pl, pictures_p)
        size = finest.shape[-2:]
        meant = F.interpolate(self.meant(read).movedim(-1, 1), size, mode="bilinear", align_corners=False)
        liked = F.interpolate(match[:, None], size, mode="bilinear", align_corners=False)
        drawn = self.draw(torch.cat([self.fine(finest)[pictures_p] + meant, liked / 4], dim=1))
        return Found(match, self.mask(drawn)[:, 0], presence)

    def _match(self, level_bchw: Tensor, phrases_pc: Tensor, pictures_p: Tensor) -> Tensor:
        names = F.normalize(self.names(level_bchw), dim=1)[pictures_p]
        cosine = torch.einsum("pchw,pc->phw", names, F.normalize(phrases_pc, dim=-1))
        return self._sureness(cosine)

    def _sureness(self, cosine: Tensor) -> Tensor:
        return self.scale.exp() * cosine + self.bias

    def _read(
        self,
        level_bchw: Tensor,
        match_phw: Tensor,
        tokens_plc: Tensor,
        phrases_pc: Tensor,
        valid_pl: Tensor,
        pictures_p: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Cells (P, h, w, C) after looking at each other and at the words, and presence logits (P,)."""
        height, width = level_bchw.shape[-2:]
        places = sine_tokens(level_bchw.shape[1], height, width, level_bchw.device, level_bchw.dtype)
        liked = F.adaptive_max_pool2d(match_phw[:, None], (height, width)).flatten(2).mT
        scale, shift = self.film(phrases_pc)[:, None].chunk(2, dim=-1)
        cells = self.cells(level_bchw).flatten(2).mT[pictures_p] * (1 + scale) + shift
        cells = cells + places + self.likeness(liked / 4)
        sequence = torch.cat([phrases_pc[:, None], tokens_plc, cells], dim=1)
        known = torch.ones(len(cells), 1 + cells.shape[1], dtype=torch.bool, device=cells.device)
        unread = ~torch.cat([known[:, :1], valid_pl, known[:, 1:]], dim=1)
        for layer in self.layers:
            sequence = layer(sequence, src_key_padding_mask=unread)
        sequence = self.layer_norm(sequence)
        return sequence[:, -cells.shape[1] :].unflatten(1, (height, width)), self.presence(sequence[:, 0])[:, 0]


class Eyes(nn.Module):
    """A residual convolutional network (arXiv 1512.03385) with a feature pyramid (arXiv 1612.03144), GroupNorm
    throughout: it learns to recognise from far fewer pictures than a transformer of its size does."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int], dim: int) -> None:
        super().__init__()
        first, *_ = widths
        self.stem = nn.Sequential(
            nn.Conv2d(3, first // 2, 3, 2, 1), _norm(first // 2), nn.GELU(), nn.Conv2d(first // 2, first, 3, 2, 1)
        )
        befores = (first, *widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(
                Down(before, width) if number else nn.Identity(), *(ResidualBlock(width) for _ in range(count))
            )
            for number, (before, width, count) in enumerate(zip(befores, widths, blocks, strict=True))
        )
        self.laterals = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in widths)

    def forward(self, pixels_bchw: Tensor) -> tuple[Tensor, ...]:
        """Maps of `dim` channels, fine to coarse: strides 4, 8, 16."""
        maps, seen = [], self.stem(pixels_bchw)
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            seen = stage(seen)
            maps.append(lateral(seen))
        levels = [maps.pop()]
        for level in reversed(maps):
            levels.append(level + F.interpolate(levels[-1], level.shape[-2:], mode="nearest"))
        return tuple(reversed(levels[1:]))


class Down(nn.Sequential):
    """Half the resolution."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__(_norm(before), nn.Conv2d(before, width, 3, 2, 1))


class ResidualBlock(nn.Module):
    """Two convolutions, each normalised first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _norm(width), nn.GELU(), nn.Conv2d(width, width, 3, padding=1),
            _norm(width), nn.GELU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, x_bchw: Tensor) -> Tensor:
        seen: Tensor = x_bchw + self.layers(x_bchw)
        return seen


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(width // 8, width)


class WordEncoder(nn.Module):
    """Tokens of phrases to what they say in their phrase, and the phrase as a whole."""

    def __init__(self, config: FinderConfig, word_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(word_dim, config.dim)
        self.norm = nn.LayerNorm(config.dim)
        self.places = nn.Parameter(torch.randn(MOST_WORDS, config.dim) * 0.5)
        self.layers = nn.ModuleList(_layer(config) for _ in range(config.text_layers))

    def forward(self, words_plw: Tensor, valid_pl: Tensor) -> tuple[Tensor, Tensor]:
        """(P, L, C) and (P, C)."""
        tokens = self.norm(self.project(words_plw)) + self.places[: words_plw.shape[1]]
        for layer in self.layers:
            tokens = layer(tokens, src_key_padding_mask=~valid_pl)
        weights = valid_pl.to(tokens.dtype)[..., None]
        return tokens, (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)


def padded(ids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Token ids of phrases as one tensor (P, L), and which of them are real."""
    lengths = torch.tensor([len(row) for row in ids], device=ids[0].device)
    rows = pad_sequence(list(ids), batch_first=True)
    return rows, torch.arange(rows.shape[1], device=rows.device) < lengths[:, None]


def _layer(config: FinderConfig) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        config.dim,
        config.heads,
        config.feedforward,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
