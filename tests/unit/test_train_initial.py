"""Where parameters start: taken from files by their libraries' names, drawn otherwise; then exported and checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Sam2VisionModel

from tests.shapes import run_values
from tests.tiny import FINDER, OUTLINER, TINY, tiny_model, write_tiny_model
from tests.unit.model_parts import noise
from tests.unit.reference_files import reference
from x2roto.engine.convert import convert
from x2roto.engine.memory import Memory
from x2roto.engine.model.mask_encoder import _library_config
from x2roto.engine.weights import load_model
from x2roto.errors import ModelError, PromptError
from x2roto.train import checkpoint
from x2roto.train.config import Initial, Language, TrainConfig, parse_config
from x2roto.train.initial import _changed, byte_tokenizer, initial_model, initial_segmentor, load_tokenizer
from x2roto.train.network import nothing_asked
from x2roto.train.trainer import Trainer

CPU = torch.device("cpu")


def config(tmp_path: Path, stage: str = "joint", **initial: str) -> TrainConfig:
    parsed = parse_config({**run_values(stage), "out": str(tmp_path / "run")}, tmp_path / "run.toml")
    return replace(parsed, initial=Initial(**{"tokenizer": "bytes", **initial}))


def started(settings: TrainConfig) -> dict[str, Tensor]:
    return initial_model(settings, load_tokenizer(settings), CPU).state_dict()


def test_the_same_seed_draws_the_same_network(tmp_path: Path) -> None:
    settings = config(tmp_path)
    first, again = started(settings), started(settings)
    other = started(replace(settings, run=replace(settings.run, seed=1)))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(
        first["segmentor.decoder.queries_features.weight"], other["segmentor.decoder.queries_features.weight"]
    )


def base_folder(tmp_path: Path) -> Path:
    """Qwen3-VL in small, with a vocabulary padded beyond the tokenizer's as the real one's is."""
    folder = tmp_path / "base"
    folder.mkdir()
    tensors = dict(reference().base)
    for name in [name for name in reference().merged if name.startswith("vlm.model.visual") and "merger" in name]:
        tensors.setdefault(name.removeprefix("vlm."), reference().merged[name])
    save_file(tensors, folder / "model.safetensors")
    rows = tensors["model.language_model.embed_tokens.weight"].shape[0]
    text = {**TINY.language["text_config"], "vocab_size": rows}
    (folder / "config.json").write_text(json.dumps({**TINY.language, "text_config": text}))
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def test_a_language_model_is_taken_whole_and_its_vocabulary_cut(tmp_path: Path) -> None:
    folder = base_folder(tmp_path)
    state = started(config(tmp_path, language=str(folder), tokenizer=str(folder)))
    stored = load_file(folder / "model.safetensors")
    embedding = state["vlm.model.language_model.embed_tokens.weight"]
    assert (
        len(embedding)
        == TINY.language["text_config"]["vocab_size"]
        < len(stored["model.language_model.embed_tokens.weight"])
    )
    assert torch.equal(state["vlm.lm_head.weight"], embedding)
    for name, tensor in stored.items():
        found = state[f"vlm.{name}"]
        assert torch.equal(found, tensor.float()[: len(found)]), name


def test_a_language_model_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    folder = base_folder(tmp_path)
    stored = load_file(folder / "model.safetensors")
    del stored["model.language_model.norm.weight"]
    save_file(stored, folder / "model.safetensors")
    with pytest.raises(ModelError, match="1 missing"):
        started(config(tmp_path, language=str(folder), tokenizer=str(folder)))


def test_the_mask_encoder_comes_from_sam_and_the_first_frame_with_memory_only(tmp_path: Path) -> None:
    folder = tmp_path / "sam"
    folder.mkdir()
    encoder = _library_encoder()
    save_file({**encoder, "no_memory_embedding": torch.ones(1, 1, TINY.dim)}, folder / "model.safetensors")
    state = started(config(tmp_path, mask_encoder=str(folder)))
    alone = initial_segmentor(config(tmp_path, "segmentor", mask_encoder=str(folder)), CPU).state_dict()
    for name, tensor in encoder.items():
        ours = f"segmentor.encoder.{name.removeprefix('vision_encoder.')}"
        assert torch.equal(state[ours], tensor)
        assert torch.equal(alone[ours], tensor)
    assert (state["segmentor.no_memory_embedding"] == 1).all()
    assert (alone["segmentor.no_memory_embedding"] == 0).all()


def _library_encoder() -> dict[str, Tensor]:
    """The vision encoder of a SAM 2.1 model in small, under the names its library stores it by."""
    torch.manual_seed(5)
    model = Sam2VisionModel(_library_config(TINY.encoder, TINY.image_size))
    return {f"vision_encoder.{name}": tensor.clone() for name, tensor in model.state_dict().items()}


def test_a_model_folder_goes_on_as_it_is(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    state = started(config(tmp_path, model=str(folder), tokenizer=str(folder)))
    stored = load_model(folder, dtype=torch.float32).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in stored.items())


def test_weights_that_fit_nowhere_are_refused(tmp_path: Path) -> None:
    save_file({"head.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="nothing of this network"):
        started(config(tmp_path, segmentor=str(tmp_path / "other.safetensors")))


def test_a_run_needs_a_tokenizer(tmp_path: Path) -> None:
    settings = replace(config(tmp_path), initial=Initial())
    with pytest.raises(PromptError, match="no tokenizer"):
        load_tokenizer(settings)


def test_a_checkpoint_converts_as_the_released_one_does(tmp_path: Path) -> None:
    """Low-rank updates and all: `models convert` on the checkpoint gives the exported model."""
    folder = base_folder(tmp_path)
    settings = config(tmp_path, language=str(folder), tokenizer=str(folder))
    trainer = Trainer(settings)
    for name, parameter in trainer.stage.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    trainer.save()
    trainer.finish()
    (saved,) = checkpoint.checkpoints(settings.out)
    converted = tmp_path / "converted"
    convert(
        saved / checkpoint.WEIGHTS,
        folder,
        converted,
        config=replace(TINY, language={**TINY.language}),
        dtype="float32",
        lora_alpha=float(settings.language.alpha),
    )
    exported = load_file(settings.out / "model" / "model.safetensors")
    found = load_file(converted / "model.safetensors")
    assert found.keys() == exported.keys()
    for name, tensor in exported.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_a_finished_model_may_be_a_blend_of_what_was_learnt_and_what_it_began_with(tmp_path: Path) -> None:
    settings = config(tmp_path)
    settings = replace(settings, run=replace(settings.run, blend=0.25, store="float32"))
    trainer = Trainer(settings)
    began = {name: tensor.clone() for name, tensor in trainer.stage.model.state_dict().items()}
    with torch.no_grad():
        for parameter in trainer.stage.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    now = trainer.stage.model.state_dict()
    learnt = {name for name, tensor in now.items() if not torch.equal(tensor, began[name])}
    trainer.finish()
    finished = trainer.stage.model.state_dict()
    assert learnt
    for name, tensor in began.items():
        torch.testing.assert_close(finished[name], tensor + 0.25 * (name in learnt))
    # A run is the same whatever becomes of it in the end.
    assert replace(settings, run=replace(settings.run, blend=1.0)).digest() == settings.digest()


def test_a_finished_model_may_be_a_blend_with_another_model(tmp_path: Path) -> None:
    settings = config(tmp_path)
    settings = replace(
        settings, language=replace(settings.language, learn="full"), run=replace(settings.run, store="float32")
    )
    other = Trainer(replace(settings, out=tmp_path / "other", run=replace(settings.run, seed=5)))
    other.finish()
    blended = replace(settings.run, blend=0.25, blend_with=str(tmp_path / "other" / "model"))
    trainer = Trainer(replace(settings, run=blended))
    began = {name: each.detach().clone() for name, each in trainer.stage.model.named_parameters()}
    rest = dict(other.stage.model.named_parameters())
    trainer.finish()
    for name, each in trainer.stage.model.named_parameters():
        wanted = 0.25 * began[name] + 0.75 * rest[name] if each.requires_grad else began[name]
        torch.testing.assert_close(each, wanted, msg=name)
    queries = "segmentor.decoder.queries_features.weight"
    assert not torch.equal(began[queries], rest[queries])
    with pytest.raises(ModelError, match=r"does not fit the network; \d+ missing: vlm"):
        Trainer(replace(settings, language=Language(), run=blended))


def test_a_checkpoint_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(tmp_path)
    trainer = Trainer(settings)
    next(trainer.steps())
    trainer.save()
    first = checkpoint.checkpoints(settings.out)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    trainer.position = replace(trainer.position, step=trainer.step + 1)
    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        trainer.save()
    assert checkpoint.checkpoints(settings.out) == first


def test_only_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    settings = config(tmp_path)
    settings = replace(settings, run=replace(settings.run, keep=2))
    trainer = Trainer(settings)
    for step in range(4):
        trainer.position = replace(trainer.position, step=step)
        trainer.save()
    assert [path.name for path in checkpoint.checkpoints(settings.out)] == ["step-00000002", "step-00000003"]


def test_a_model_may_keep_the_first_frame_from_now_on_and_gives_the_same_at_first() -> None:
    side, memory = TINY.image_size, replace(TINY.memory, feature_strides=(0, 1, 0), mask_stride=2, carry=2)
    model = tiny_model(config=replace(TINY, memory=memory))
    changed = _changed(model, Initial(anchored=True, reading=2))
    assert (changed.config.memory.anchored, changed.config.decoder.reading) == (True, 2)
    results = []
    with torch.inference_mode():
        for segmentor in (model.segmentor, changed.segmentor):
            pyramid = segmentor.encoder(noise(1, 3, side, side)).levels_bchw
            shown = Memory(3).remember(segmentor.imprint(pyramid, torch.ones(1, 1, side // 4, side // 4)))
            conditions = nothing_asked(changed, 1)
            results.append(segmentor.read(segmentor.features(pyramid, first=False), shown, conditions))
    torch.testing.assert_close(results[1], results[0])


def test_a_model_may_go_on_at_another_size_of_picture(tmp_path: Path) -> None:
    settings = config(tmp_path)
    chosen = replace(settings.initial, model=str(write_tiny_model(tmp_path / "tiny")), image_size=96, tokenizer=None)
    settings = replace(settings, initial=chosen)
    model = initial_model(settings, load_tokenizer(settings), CPU)
    assert model.config.image_size == 96
    with torch.inference_mode():
        assert model.segmentor.encoder(torch.zeros(1, 3, 96, 96)).levels_bchw[0].shape[-2:] == (24, 24)


def test_outlines_may_go_on_finer_with_the_same_weights() -> None:
    model = tiny_model(config=replace(TINY, room=2.0, finder=FINDER, outliner=OUTLINER))
    changed = _changed(model, Initial(outline_side=96))
    assert changed.config == replace(model.config, outliner=replace(OUTLINER, side=96))
    assert all(torch.equal(changed.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert _changed(changed, Initial()) is changed
    assert _changed(changed, Initial(outline_alone=True)).config.outliner == replace(OUTLINER, side=96, alone=True)


def test_an_outliner_with_more_blocks_draws_the_same_at_first() -> None:
    model = tiny_model(config=replace(TINY, room=2.0, finder=FINDER, outliner=OUTLINER))
    changed = _changed(model, Initial(outline_blocks=OUTLINER.blocks + 2))
    assert model.outliner is not None
    assert changed.outliner is not None
    assert len(changed.outliner.blocks) == len(model.outliner.blocks) + 2
    state = noise(1, OUTLINER.dim, 16, 16)
    assert torch.equal(changed.outliner.blocks(state), model.outliner.blocks(state))
    assert any(parameter.any() for parameter in changed.outliner.blocks[-1].parameters())


def test_a_model_may_do_without_what_it_learnt_with() -> None:
    memory = replace(TINY.memory, feature_strides=(0, 1, 0), mask_stride=2, carry=2)
    model = tiny_model(config=replace(TINY, memory=memory, decoder=replace(TINY.decoder, reading=2)))
    changed = _changed(model, Initial(plain=True))
    assert (changed.segmentor.carry, changed.segmentor.reading) == (None, None)
    assert (changed.config.memory.carry, changed.config.decoder.reading) == (0, 0)
    left = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if ".carry." not in name and ".reading." not in name
    }
    assert changed.state_dict().keys() == left.keys()
    assert all(torch.equal(changed.state_dict()[name], tensor) for name, tensor in left.items())
