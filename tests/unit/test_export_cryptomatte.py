"""Cryptomatte against the published vectors of its specification."""

from __future__ import annotations

import numpy as np
import pytest

from x2roto.export.cryptomatte import RANKS, id_bits, manifest, murmur3, ranked_channels

VECTORS = {
    "torus": (4053562365, 0xF19C73FD),
    "равнина": (2518896926, 0x9623511E),
    "bunny": (327490166, 0x13851A76),
    "default": (1120495519, 0x42C9679F),
    "hello": (613153351, 0x248BFA47),
    "": (0, 0x00800000),
}


@pytest.mark.parametrize(("name", "expected"), VECTORS.items())
def test_hash_and_id(name: str, expected: tuple[int, int]) -> None:
    assert (murmur3(name.encode()), id_bits(name)) == expected


@pytest.mark.parametrize(
    ("name", "key"), [("CryptoObject", "3ae39a5"), ("CryptoAsset", "f42029d"), ("CryptoMaterial", "be359d6")]
)
def test_metadata_keys(name: str, key: str) -> None:
    assert f"{murmur3(name.encode()):08x}"[:7] == key


def test_manifest_holds_ids_in_hex() -> None:
    assert manifest(["torus", "hello"]) == {"torus": "f19c73fd", "hello": "248bfa47"}


def test_every_matte_comes_back_where_they_do_not_overlap() -> None:
    generator = np.random.default_rng(0)
    alphas = generator.random((4, 8, 9), dtype=np.float32)
    alphas /= alphas.sum(0) * 1.25
    ids = np.array([id_bits(name) for name in "abcd"], np.uint32).view(np.float32)
    channels = ranked_channels(alphas, ids)
    pairs = [
        (channels[f"CryptoObject0{r // 2}.{'RB'[r % 2]}"], channels[f"CryptoObject0{r // 2}.{'GA'[r % 2]}"])
        for r in range(RANKS)
    ]
    for index in range(4):
        found = sum((rank_ids == ids[index]) * covers for rank_ids, covers in pairs)
        assert np.abs(found - alphas[index]).max() < 1e-6
    covers = np.array([cover for _, cover in pairs])
    assert np.all(np.diff(covers, axis=0) <= 0)
    assert not pairs[5][0].any()


def test_overlaps_sum_to_one_and_weak_ranks_are_dropped() -> None:
    ids = np.arange(1, 9, dtype=np.float32)
    channels = ranked_channels(np.full((8, 2, 2), 0.5, np.float32), ids)
    covers = [plane for name, plane in channels.items() if name[-1] in "GA"]
    assert len(channels) == 2 * RANKS
    assert np.allclose(sum(covers), 6 / 8)
