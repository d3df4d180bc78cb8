"""What the sampler promises whatever the sizes: every sample is seen, devices share an epoch, rates rise and fall."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from x2roto.train.sampling import Source, count_micro_batches, mega_batches, micro_batches, rate_factor

sources = st.builds(
    Source,
    length=st.integers(1, 30),
    batch=st.integers(1, 4),
    accumulation=st.integers(1, 4),
    frame_counts=st.none() | st.lists(st.sampled_from([2, 4, 8]), min_size=1, max_size=30),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(sources, min_size=1, max_size=4), st.integers(1, 4), st.integers(0, 99))
def test_every_sample_is_seen_and_devices_share_them(parts: list[Source], world: int, seed: int) -> None:
    epochs = [list(micro_batches(parts, world, rank, seed)) for rank in range(world)]
    seen = Counter(index for epoch in epochs for batch in epoch for index in batch.indices)
    assert set(seen) == set(range(sum(part.length for part in parts)))
    for together in zip(*epochs, strict=True):
        assert len({(batch.source, batch.steps, len(batch.indices)) for batch in together}) == 1
        assert len(together[0].indices) == parts[together[0].source].batch
    assert len(epochs[0]) == count_micro_batches(parts, world)


@settings(max_examples=50, deadline=None)
@given(st.lists(sources, min_size=1, max_size=4), st.integers(1, 4), st.integers(0, 99))
def test_without_completion_nothing_is_seen_twice(parts: list[Source], world: int, seed: int) -> None:
    batches = mega_batches(parts, world, seed, complete=False)
    seen = [index for batch in batches for index in batch.indices]
    assert len(seen) == len(set(seen))
    assert all(len(batch.indices) == parts[batch.source].mega(world) for batch in batches)


def test_the_optimiser_steps_once_per_window() -> None:
    batches = list(micro_batches([Source(12, 1, 4, [8] * 12)], 1, 0, 0))
    assert [batch.steps for batch in batches] == [False, False, False, True] * 3


def test_clips_of_a_step_are_of_like_length() -> None:
    counts = [2, 8] * 8
    batches = mega_batches([Source(16, 2, 2, counts)], 1, 3)
    assert all(len({counts[index] for index in batch.indices}) == 1 for batch in batches)


@given(st.integers(40, 1000))
def test_rates_rise_to_one_and_fall_towards_nothing(total: int) -> None:
    factors = [rate_factor(step, total, 0.1, 0.01) for step in range(total)]
    top = factors.index(max(factors))
    assert factors[0] == 0.01
    assert max(factors) == 1
    assert factors[:top] == sorted(factors[:top])
    assert factors[top + 1 :] == sorted(factors[top + 1 :], reverse=True)
    assert 0 < factors[-1] < 0.01


def test_an_echo_repeats_each_micro_batch_before_the_next() -> None:
    parts = [Source(6, 2, echo=3), Source(4, 2, 1, [8] * 4)]
    batches = list(micro_batches(parts, 1, 0, 0))
    assert len(batches) == count_micro_batches(parts, 1) == 3 * 3 + 2
    assert all(batch.steps for batch in batches)
    takes = [batch for batch in batches if batch.source == 0]
    assert [batch.take for batch in takes] == [0, 1, 2] * 3
    assert len({batch.indices for batch in takes}) == 3
    for first, second in pairwise(batches):
        assert second.take == 0 or (second.indices, second.take) == (first.indices, first.take + 1)
