"""Pairs, recall and captions of grounded description."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from x2roto.errors import ModelError
from x2roto.evaluate.metrics import caption
from x2roto.evaluate.metrics.caption import CaptionScores, answered_caption, cider, meteor, tokens
from x2roto.evaluate.metrics.grounded import PairedIoU, PhraseRecall, greedy_pairs, phrase_pairs

Table = NDArray[np.float64]


def same_words(first: Sequence[str], second: Sequence[str]) -> Table:
    return np.array([[float(a == b) for b in second] for a in first])


def columns(*stops: int) -> NDArray[np.bool_]:
    """Masks of the first ten columns up to each of `stops`."""
    return np.broadcast_to(np.arange(10) < np.array(stops)[:, None, None], (len(stops), 4, 10))


def test_greedy_pairs_are_by_score_one_to_one_and_above_0() -> None:
    score = np.array([[0.5, 0.9, 0.0], [0.8, 0.95, 0.0], [0.2, 0.1, 0.0]])
    assert greedy_pairs(score) == [(1, 1), (0, 0)]
    assert greedy_pairs(np.zeros((0, 3))) == []


@pytest.mark.parametrize("seed", range(20))
def test_greedy_pairs_equal_deleting_rows_and_columns(seed: int) -> None:
    random = np.random.default_rng(seed)
    score = random.random(random.integers(1, 7, 2)).round(1)
    left, values = score.copy(), []
    while left.size and left.max() > 0:
        row, column = np.unravel_index(left.argmax(), left.shape)
        values.append(left[row, column])
        left = np.delete(np.delete(left, row, 0), column, 1)
    assert [score[pair] for pair in greedy_pairs(score)] == values


def test_a_failing_pair_ends_the_search_only_as_reference() -> None:
    iou = np.array([[0.9, 0.1], [0.2, 0.8]])
    alike = np.array([[0.0, 1.0], [1.0, 1.0]])
    assert phrase_pairs(iou, alike) == [(1, 1)]
    assert phrase_pairs(iou, alike, reference=True) == []
    assert phrase_pairs(iou, np.ones((2, 2)), reference=True) == [(0, 0), (1, 1)]


def test_a_phrase_goes_to_the_mask_it_agrees_with() -> None:
    iou = np.array([[0.9, 0.6], [0.7, 0.1]])
    assert phrase_pairs(iou, np.array([[0.0, 0.9], [0.9, 0.9]])) == [(1, 0), (0, 1)]


def test_unpaired_masks_do_not_lower_the_mean_but_images_without_pairs_do() -> None:
    metrics = PairedIoU(), PairedIoU(reference=True)
    for metric in metrics:
        metric.add(columns(4), columns(2, 9))
        metric.add(columns(4), columns()[:0])
        metric.add(columns(4), ~columns(4))
    assert metrics[0].result()["mIoU"] == pytest.approx(0.5 / 3)
    assert metrics[1].result()["mIoU"] == pytest.approx(0.5 / 2)


def test_recall_counts_phrases() -> None:
    metric = PhraseRecall(same_words)
    metric.add(columns(4, 9), ["a cat", "a dog"], columns(9, 5), ["a dog", "a tree"])
    metric.add(columns(4), ["a cat"], columns()[:0], [])
    assert metric.result() == pytest.approx({"Recall": 1 / 3})


def test_recall_of_clips_is_over_all_frames() -> None:
    clip = np.stack([columns(4, 9), columns(4, 9)], 1)
    half = clip & np.array([True, False])[:, None, None]
    for masks, recall in ((clip, 1), (half, 1), (half & columns(1)[0], 0)):
        metric = PhraseRecall(same_words)
        metric.add(clip[:1], ["a cat"], masks[:1], ["a cat"])
        assert metric.result()["Recall"] == recall


def test_without_a_text_model_recall_is_absent_and_says_why() -> None:
    metric = PhraseRecall(None)
    metric.add(columns(4), ["a cat"], columns(4), ["a cat"])
    assert metric.result() == {}
    assert "text model" in metric.absent()["Recall"]
    assert PhraseRecall(same_words).absent() == {}


# ---- captions


def test_the_caption_is_what_does_not_mention_masks() -> None:
    assert answered_caption("<p>a dog</p> runs on\n<p>grass</p>. It is <SEG>.") == "a dog runs on grass."
    assert answered_caption("<p>a dog</p> runs.") == ""


def test_cider_of_the_same_words_is_10_and_of_others_0() -> None:
    pytest.importorskip("pycocoevalcap")
    words = ["a man on a red horse", "two dogs in deep snow", "rain over the old town"]
    score, each = cider(words, [words[0], words[2], words[2]])
    assert each == pytest.approx([10, 0, 10])
    assert score == pytest.approx(20 / 3)


def test_without_java_captions_are_absent_and_say_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pycocoevalcap")
    monkeypatch.setenv("PATH", str(tmp_path))
    metric = CaptionScores()
    metric.add("a", "a cat", "a dog")
    assert metric.result() == {}
    assert metric.absent().keys() == {"METEOR", "CIDEr"}
    for scored in (lambda: tokens(["a cat"]), lambda: meteor(["a cat"], ["a dog"])):
        with pytest.raises(ModelError, match="need Java: install a Java runtime"):
            scored()


def test_without_the_library_captions_are_absent_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption, "find_spec", lambda name: None)
    assert "pip install pycocoevalcap" in CaptionScores().absent()["CIDEr"]
    with pytest.raises(ModelError, match="pip install pycocoevalcap"):
        cider(["a"], ["a"])


def test_a_failing_tokenizer_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pycocoevalcap")
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho no heap >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(ModelError, match="no heap"):
        tokens(["a cat", "a dog"])


# ---- text model


def test_bert_similarity_is_the_cosine_of_mean_states(tmp_path: Path) -> None:
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    from x2roto.evaluate.metrics.similarity import bert_similarity

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "red"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    network = BertModel(config).eval()
    network.save_pretrained(tmp_path)
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    found = bert_similarity(tmp_path)(["a cat", "a red dog"], ["a cat"])
    with torch.inference_mode():
        states = [
            network(torch.tensor([ids])).last_hidden_state[0].mean(0) for ids in ([2, 5, 6, 3], [2, 5, 8, 7, 3])
        ]
    assert found[0, 0] == pytest.approx(1)
    assert found[1, 0] == pytest.approx(float(torch.cosine_similarity(*states, dim=0)), abs=1e-6)
    assert found[1, 0] < 0.999


def test_a_missing_text_model_is_told(tmp_path: Path) -> None:
    from x2roto.evaluate.metrics.similarity import bert_similarity

    with pytest.raises(ModelError, match=r"cannot be loaded .* give its folder"):
        bert_similarity(tmp_path / "none")
