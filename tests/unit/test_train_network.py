"""A training step is inference with gradients: same answers, whatever shares the batch, recomputed or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from random import Random

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.e2e.test_train import prompts_of
from tests.shapes import Shapes, request
from tests.tiny import TINY, byte_tokenizer, tiny_model, tiny_segmenter
from x2roto.clip import Frame
from x2roto.engine.preprocess import PatchConfig
from x2roto.engine.prompting import SpecialIds
from x2roto.engine.segmenter import Reading, Segmenter
from x2roto.train import initial
from x2roto.train.collate import Batch, Preparer, Reader, collate
from x2roto.train.config import Language, Losses
from x2roto.train.matching import Answers
from x2roto.train.network import JointStage, SegmentorAlone, SegmentorStage, StepLosses
from x2roto.train.samples import ClipSample

READER = Reader(byte_tokenizer(), SpecialIds.of(byte_tokenizer()), PatchConfig(), TINY.region.points, 0)
PREPARE = Preparer(TINY.image_size, READER)
LOSSES = Losses(points=64)
NUMBERS = tuple(field.name for field in fields(StepLosses))


def batch_of(samples: Sequence[ClipSample], seeds: Sequence[int] = (0, 1, 2, 3, 4, 5, 6, 7)) -> Batch:
    return collate([PREPARE(sample, seed) for sample, seed in zip(samples, seeds, strict=False)])


def sample(task: str, length: int = 3, index: int = 0) -> ClipSample:
    return Shapes(length=length, tasks=(task,))[index]


def answers_of(stage: JointStage, batch: Batch) -> Answers:
    with torch.no_grad():
        answers = stage.eval()(batch, learn=False)
    assert answers is not None
    return answers


@pytest.mark.parametrize("task", ["refseg", "genseg", "objseg"])
def test_answers_are_those_of_inference(task: str) -> None:
    clip = sample(task)
    segmenter = tiny_segmenter()
    seed = seed_of_first_wording(clip)
    batch = collate([PREPARE(clip, seed)])
    answers = answers_of(JointStage(segmenter.model, LOSSES), batch)
    for index, (masks, classes) in enumerate(inference(segmenter, clip, seed)):
        torch.testing.assert_close(answers.mask_logits_iqhw[index : index + 1], masks, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(answers.class_logits_iqk[index : index + 1], classes, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("task", ["refseg", "objseg"])
def test_questions_apart_are_answered_as_alone(task: str) -> None:
    clip = replace(sample(task), apart=True)
    if task == "objseg":
        clip = replace(clip, targets=(clip.targets[0], np.roll(clip.targets[0], 9, 1)))
    else:
        clip = replace(clip, targets=("the left thing", "a dog"))
    stage = JointStage(tiny_segmenter().model, LOSSES)
    together = answers_of(stage, collate([PREPARE(clip, 0), PREPARE(sample(task, index=1), 7)]))
    for number, question in enumerate(clip.questions()):
        alone = answers_of(stage, collate([PREPARE(question, number)]))
        torch.testing.assert_close(together.mask_logits_iqhw[number::3], alone.mask_logits_iqhw, rtol=1e-4, atol=1e-4)
        classes = together.class_logits_iqk[number::3]
        torch.testing.assert_close(classes[..., [0, -1]], alone.class_logits_iqk, rtol=1e-4, atol=1e-4)


def seed_of_first_wording(clip: ClipSample) -> int:
    """A seed that draws the first question and the first answer."""
    wording = clip.row.wordings["plain"]
    return next(seed for seed in range(1000) if first_drawn(seed, len(wording.questions), len(wording.answers)))


def first_drawn(seed: int, questions: int, answers: int) -> bool:
    random = Random(seed)
    return (random.randrange(questions), random.randrange(answers)) == (0, 0)


def inference(segmenter: Segmenter, clip: ClipSample, seed: int) -> list[tuple[Tensor, Tensor]]:
    prompts, _ = prompts_of(clip)
    (query,) = segmenter.read(prompts, list(clip.frames), reading=Reading(seed=seed))
    frames = [Frame(index, None, rgb) for index, rgb in enumerate(clip.frames)]
    results = [result.prediction for result in segmenter.track(query).step(frames)]
    return [(result.mask_logits_bqhw, result.class_logits_bqc) for result in results]


def losses_of(stage: JointStage | SegmentorStage, batch: Batch) -> StepLosses:
    losses = stage(batch)
    assert isinstance(losses, StepLosses)
    return losses


def numbers(losses: StepLosses) -> list[float]:
    return [float(getattr(losses, name).detach()) for name in NUMBERS]


def gradients(stage: JointStage | SegmentorStage, batch: Batch) -> dict[str, Tensor]:
    stage.zero_grad(set_to_none=True)
    losses_of(stage.train(), batch).total.backward()
    return {name: p.grad.clone() for name, p in stage.named_parameters() if p.grad is not None}


def test_clips_of_other_tasks_and_lengths_change_no_answer() -> None:
    stage = JointStage(tiny_model(), LOSSES)
    clips = [sample("genseg", 3), sample("objseg", 2, 1), sample("chat", 3), sample("gcgseg", 1, 2)]
    together = answers_of(stage, batch_of(clips))
    for place, clip in ((0, clips[0]), (1, clips[1]), (2, clips[3])):
        alone = answers_of(stage, batch_of([clip], [(0, 1, 3)[place]]))
        frames = [place + 3 * step for step in range(len(clip.frames))]
        torch.testing.assert_close(together.mask_logits_iqhw[frames], alone.mask_logits_iqhw, rtol=1e-4, atol=1e-4)
        kept = [*range(clip.conditions), -1]
        torch.testing.assert_close(
            together.class_logits_iqk[frames][..., kept], alone.class_logits_iqk[..., kept], rtol=1e-4, atol=1e-4
        )


def test_phrases_of_a_batch_are_classes_for_all_and_labels_follow() -> None:
    stage = JointStage(tiny_model(), LOSSES)
    clips = [sample("refseg", 1), sample("reaseg", 1, 1)]
    two = request_of_two(clips[0])
    answers = answers_of(stage, batch_of([two, clips[1]]))
    assert answers.class_logits_iqk.shape[-1] == 4
    assert (answers.class_logits_iqk > -1e5).all()
    said = stage.answer(batch_of([two, clips[1]]))
    assert said.offsets == (0, 2)


def request_of_two(clip: ClipSample) -> ClipSample:
    """Two phrases, so two turns and two <SEG>, in one sample."""
    assert clip.masks is not None
    masks = np.concatenate([clip.masks, ~clip.masks])
    return replace(clip, targets=(*clip.targets, "the rest"), masks=masks, condition=np.array([0, 1]))


def test_a_sample_is_decoded_by_its_own_last_seg() -> None:
    """Alone or behind a sample of two turns, a sample's queries start from the same state."""
    stage = JointStage(tiny_model(), LOSSES)
    other = sample("refseg", 1, 1)
    together = stage.answer(batch_of([request_of_two(sample("refseg", 1)), other])).layers[0]
    alone = stage.answer(batch_of([other], [1])).layers[0]
    # The first layer's masks read nothing but the <SEG> state and the picture.
    torch.testing.assert_close(together.mask_logits_iqhw[1], alone.mask_logits_iqhw[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("classes", ["cross_entropy", "focal"])
def test_computing_activations_again_changes_no_gradient(classes: str) -> None:
    losses = replace(LOSSES, classes=classes)
    batch = batch_of([sample("genseg"), sample("objseg", 3, 1)])
    plain, again = (JointStage(tiny_model(), losses, checkpointing=c) for c in (False, True))
    expected, found = gradients(plain, batch), gradients(again, batch)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("tasks", [("genseg", "objseg"), ("gcgseg", "chat")])
def test_the_mean_gradient_of_two_devices_is_that_of_one_batch(tasks: tuple[str, str]) -> None:
    batches = [batch_of([sample(task, 3, index)], [index]) for index, task in enumerate(tasks)]
    noted: list[Tensor] = []
    for batch in batches:
        losses_of(JointStage(tiny_model(), LOSSES, mean=lambda counts: noted.append(counts) or counts), batch)
    shared = JointStage(tiny_model(), LOSSES, mean=lambda _: torch.stack(noted).mean(0))
    apart = [gradients(shared, batch) for batch in batches]
    together = batch_of([sample(task, 3, index) for index, task in enumerate(tasks)])
    for name, gradient in gradients(JointStage(tiny_model(), LOSSES), together).items():
        mean = sum(part.get(name, torch.zeros_like(gradient)) for part in apart) / 2
        torch.testing.assert_close(mean, gradient, rtol=1e-3, atol=1e-4, msg=name)


def test_every_learning_parameter_gets_a_gradient_through_time() -> None:
    model = tiny_model()
    initial.learn_all(model, Language(rank=2, alpha=4), encoder=True)
    stage = JointStage(model, LOSSES)
    found = gradients(stage, batch_of([sample("objseg")]))
    learning = {name for name, parameter in stage.named_parameters() if parameter.requires_grad}
    assert found.keys() == learning
    for part in ("memory_encoder", "memory_attention", "lora_", "embed_tokens", "visual.merger", "extra_projector"):
        assert any(part in name and bool(gradient.any()) for name, gradient in found.items()), part


def test_updates_sit_on_the_seven_text_maps_and_the_vision_tower_rests() -> None:
    model = tiny_model()
    initial.learn_all(model, Language(rank=2, alpha=4), encoder=False)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    layers = TINY.language["text_config"]["num_hidden_layers"]
    assert sum("lora_A" in name for name in learning) == 7 * layers
    assert not any("visual.blocks" in name or "segmentor.encoder" in name for name in learning)
    assert all("lora_" in name for name in learning if "language_model.layers" in name)


def test_full_and_frozen_language() -> None:
    for learn, layers in (("full", True), ("frozen", False)):
        model = tiny_model()
        initial.learn_all(model, Language(learn=learn), encoder=True)
        names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert any("language_model.layers" in name for name in names) is layers
        assert any("embed_tokens" in name for name in names)


def test_chat_learns_words_alone() -> None:
    losses = losses_of(JointStage(tiny_model(), LOSSES), batch_of([sample("chat")]))
    assert float(losses.total.detach()) == float(losses.language) > 0
    assert float(losses.masks) == 0


def test_frames_without_labels_are_left_out() -> None:
    stage = JointStage(tiny_model(), replace(LOSSES, points=0))
    clip = sample("objseg")
    assert clip.masks is not None
    garbage = clip.masks.copy()
    garbage[:, 1] = ~garbage[:, 1]
    labelled = np.array([True, False, True])
    found = [
        numbers(losses_of(stage, batch_of([replace(clip, masks=masks, labelled=labelled)])))
        for masks in (clip.masks, garbage)
    ]
    assert found[0] == found[1]
    unknown = losses_of(stage, batch_of([replace(clip, labelled=np.zeros(3, dtype=np.bool_))]))
    assert numbers(unknown)[2:] == [0, 0, 0]
    assert unknown.total.requires_grad


def alone_stage() -> SegmentorStage:
    torch.manual_seed(0)
    model = SegmentorAlone(TINY)
    initial.draw_parameters(model.segmentor)
    initial.learn_segmentor(model, encoder=False)
    return SegmentorStage(model, LOSSES)


def test_stage_one_takes_frames_for_pictures_and_leaves_the_rest_alone() -> None:
    prepare = Preparer(TINY.image_size, None)
    clip = sample("genseg", 3)
    stage = alone_stage()
    together = stage.answer(collate([prepare(clip, 0)])).layers[-1]
    for index in range(3):
        still = request(
            "genseg", clip.frames[[index]], Shapes(length=3)[0].masks[:, [index]].repeat(2, 0), ["a", "b"]
        )
        alone = stage.answer(collate([prepare(still, 0)])).layers[-1]
        torch.testing.assert_close(together.mask_logits_iqhw[[index]], alone.mask_logits_iqhw, rtol=1e-4, atol=1e-4)
    learned = {name.split(".")[2] for name in gradients(stage, collate([prepare(clip, 0)])) if "segmentor" in name}
    assert learned == {"pixel_decoder", "decoder"}


def test_token_attention_starts_silent() -> None:
    """A fresh decoder gives the same whatever the tokens say."""
    segmentor = alone_stage().model.segmentor
    for layer in segmentor.decoder.decoder.layers:
        assert not layer.text_cross_attn.out_proj.weight.any()
        assert not layer.text_cross_attn.out_proj.bias.any()
    memory = [p for n, p in segmentor.memory_encoder.named_parameters() if n.endswith("conv.weight")]
    assert all(abs(float(weight.std()) - 0.02) < 0.005 for weight in memory if weight.numel() > 500)
