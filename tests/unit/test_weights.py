"""Strict loading: every key used, every key filled, no code run, and the merge equal to its formula."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tests.golden.folder import golden_folder
from tests.tiny import ROWS, TINY
from tests.unit.reference_files import (
    ALPHA,
    BASE_TOKENS,
    EMBEDDING,
    FAULTS,
    HEAD,
    Tensors,
    reference,
    write_tokenizer,
)
from x2roto.engine import convert as convert_module
from x2roto.engine.convert import convert, plan_shards
from x2roto.engine.model.config import ModelConfig
from x2roto.engine.model_folder import (
    PACKAGED_MODEL,
    RELEASED_MODEL,
    damaged_files,
    find_model,
    installed_models,
    notice,
    read_header,
)
from x2roto.engine.weights import (
    UNUSED,
    Blueprint,
    Target,
    blank_model,
    build,
    check_fit,
    infer_sizes,
    load_model,
    load_state,
    merged_state,
    parameter_of,
    read_tensors,
    recipes,
    shapes_of,
    without_aliases,
)
from x2roto.errors import ModelError, OutputError

SPEC = Path(__file__).parents[2] / ".." / "shared" / "spec" / "state_dict.json"
TEXT_LAYER = "model.language_model.layers.7.mlp.up_proj"


def convert_tiny(folder: Path, **options: Any) -> Path:
    checkpoint, base = reference().write(folder)
    convert(checkpoint, base, folder / "tiny", **{"config": TINY, "lora_alpha": ALPHA, **options})
    return folder / "tiny"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float32 model folder made from the reference's files; treat as read-only."""
    return convert_tiny(tmp_path_factory.mktemp("converted"), dtype="float32")


@pytest.fixture
def model_copy(converted: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return shutil.copytree(converted, tmp_path / "tiny")


# --- Names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("segmentor.encoder.neck.convs.0.bias", Target("segmentor.encoder.neck.convs.0.bias", "weight")),
        ("mlm_projector.model.2.weight", Target("mlm_projector.model.2.weight", "weight")),
        ("vlm.base_model.model.lm_head.weight", Target("vlm.lm_head.weight", "weight")),
        (
            "vlm.base_model.model.model.visual.merger.norm.bias",
            Target("vlm.model.visual.merger.norm.bias", "weight"),
        ),
        (
            f"vlm.base_model.model.{TEXT_LAYER}.lora_A.default.weight",
            Target(f"vlm.{TEXT_LAYER}.weight", "A"),
        ),
        (
            f"vlm.base_model.model.{TEXT_LAYER}.lora_B.default.weight",
            Target(f"vlm.{TEXT_LAYER}.weight", "B"),
        ),
    ],
)
def test_a_key_of_the_checkpoint_finds_its_parameter(key: str, target: Target) -> None:
    assert parameter_of(key) == target


def test_the_released_files_fill_the_full_size_network_exactly() -> None:
    if not SPEC.is_file():
        pytest.skip(f"no list of the released file's keys at {SPEC.name}")
    spec = json.loads(SPEC.read_text())
    checkpoint, base = (
        {key: torch.empty(shape, device="meta") for key, (shape, _) in spec[part].items()}
        for part in ("checkpoint", "base_vlm")
    )
    made = recipes(checkpoint, base)
    weights = {name: recipe.weight for name, recipe in made.items()}

    language = spec["_notes"]["config"]["vlm"]
    config = infer_sizes(ModelConfig(language=language), shapes_of(weights))
    assert config == replace(ModelConfig(), language=config.language)
    assert config.language["text_config"]["vocab_size"] == 151672

    blueprint = Blueprint.of(blank_model(config))
    assert blueprint.tied == {HEAD: EMBEDDING}
    # Values on the meta device cannot be compared, so the second name is dropped by hand.
    del weights[HEAD]
    check_fit(shapes_of(without_aliases(weights, blueprint.tied)), blueprint.shapes, "the released file")

    updates = sum(recipe.update is not None for recipe in made.values())
    overridden = set(spec["base_vlm_keys_overridden_by_checkpoint"])
    assert len(checkpoint) == len(UNUSED & checkpoint.keys()) + 2 * updates + sum(
        parameter_of(key).role == "weight" for key in checkpoint.keys() - UNUSED
    )
    kept = [key for key in base if weights.get(f"vlm.{key}") is base[key]]
    assert set(base) - set(kept) == overridden


# --- Merging ---------------------------------------------------------------------------------------


def test_low_rank_updates_are_added_as_the_formula_says(tmp_path: Path) -> None:
    checkpoint, base = reference().write(tmp_path)
    state = without_aliases(merged_state(checkpoint, base, lora_alpha=ALPHA), {HEAD: EMBEDDING})
    assert state.keys() == reference().merged.keys()
    for name, expected in reference().merged.items():
        torch.testing.assert_close(state[name], expected, rtol=1e-6, atol=1e-7, msg=name)


def test_an_update_is_rounded_only_once() -> None:
    updated = [r for r in recipes(reference().checkpoint, reference().base).values() if r.update is not None]
    assert len(updated) == 7 * TINY.language["text_config"]["num_hidden_layers"]
    for recipe in updated:
        assert recipe.weight.dtype is torch.bfloat16
        assert torch.equal(recipe.make(torch.bfloat16, ALPHA), recipe.make(torch.float32, ALPHA).bfloat16())


@pytest.mark.parametrize("form", ["plain", "state_dict", "safetensors"])
def test_every_form_of_the_checkpoint_gives_the_same_parameters(form: str, tmp_path: Path) -> None:
    checkpoint, base = reference().write(tmp_path)
    expected = merged_state(checkpoint, base)
    if form == "state_dict":
        torch.save({"state_dict": reference().checkpoint}, checkpoint)
    elif form == "safetensors":
        checkpoint = tmp_path / "checkpoint.safetensors"
        save_file(reference().checkpoint, checkpoint)
    _assert_equal(merged_state(checkpoint, base), expected)


@pytest.mark.parametrize("form", ["file", "shards"])
def test_every_form_of_the_base_gives_the_same_parameters(form: str, tmp_path: Path) -> None:
    checkpoint, base = reference().write(tmp_path)
    expected = merged_state(checkpoint, base)
    if form == "shards":
        _shard(base, reference().base)
    _assert_equal(merged_state(checkpoint, base if form == "shards" else base / "model.safetensors"), expected)


def _shard(base: Path, tensors: Tensors) -> None:
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, base / file)
    where = {name: file for file, part in shards.items() for name in part}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (base / "model.safetensors").unlink()


def _assert_equal(left: Tensors, right: Tensors) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


# --- Refusing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_does_not_fit_is_refused(fault: str, tmp_path: Path) -> None:
    change, message = FAULTS[fault]
    checkpoint, base = reference().write(tmp_path, change)
    with pytest.raises(ModelError) as raised:
        convert(checkpoint, base, tmp_path / "tiny", config=TINY)
    assert message in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "pytorch_model.bin"]


class _Trap:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    torch.save({"bg_embeds.weight": torch.zeros(1, 32), "x": _Trap(sprung)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="code or objects beside tensors"):
        read_tensors(tmp_path / "pytorch_model.bin")
    assert not sprung.exists()
    # The trap does work where pickles are trusted.
    torch.load(tmp_path / "pytorch_model.bin", weights_only=False)
    assert sprung.exists()


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_a_cut_file_is_refused(suffix: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    torch.save(reference().base, path) if suffix == ".bin" else save_file(reference().base, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])
    with pytest.raises(ModelError, match="fetch it again") as raised:
        read_tensors(path)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no file .*nothing.bin"):
        read_tensors(tmp_path / "nothing.bin")


def _index(base: Path, where: object) -> None:
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


BASE_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "no base model at"),
    "no weights": (lambda base: (base / "model.safetensors").unlink(), "holds neither model.safetensors nor"),
    "cut weights": (lambda base: _cut(base / "model.safetensors"), "damaged or cut short"),
    "shard outside": (lambda base: _index(base, {"x": "../up.safetensors"}), "plain file names"),
    "shard missing": (lambda base: _index(base, {"x": "gone.safetensors"}), "no file .*gone.safetensors"),
    "index of nothing": (lambda base: _index(base, None), "plain file names"),
    "index broken": (
        lambda base: (base / "model.safetensors.index.json").write_text("{"),
        "index.json is not valid JSON",
    ),
    "no config": (lambda base: (base / "config.json").unlink(), "cannot read .*config.json"),
    "broken config": (lambda base: (base / "config.json").write_text("[]"), "config.json holds no JSON object"),
    "no tokenizer": (lambda base: (base / "tokenizer.json").unlink(), "no tokenizer at"),
    "broken tokenizer": (lambda base: (base / "tokenizer.json").write_text("{}"), "tokenizer.json is damaged"),
    "short tokenizer": (
        lambda base: write_tokenizer(base, BASE_TOKENS - 1),
        f"has {ROWS - 1} tokens with <SEG> <p> </p>, the embedding has {ROWS} rows",
    ),
}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("fault", BASE_FAULTS)
def test_a_base_model_that_cannot_be_used_is_refused(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, base = reference().write(tmp_path)
    monkeypatch.setattr(convert_module, "ModelConfig", lambda language: replace(TINY, language=language))
    change, message = BASE_FAULTS[fault]
    change(base)
    with pytest.raises(ModelError, match=message):
        convert(checkpoint, base, tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


# --- Model folders ---------------------------------------------------------------------------------


def test_a_converted_model_loads_as_it_was_merged(converted: Path) -> None:
    model = load_model(converted)
    state = without_aliases(model.state_dict(), {HEAD: EMBEDDING})
    assert state.keys() == reference().merged.keys()
    for name, expected in reference().merged.items():
        torch.testing.assert_close(state[name], expected, rtol=1e-6, atol=1e-7, msg=name)
    assert not model.training
    assert model.get_parameter(HEAD) is model.get_parameter(EMBEDDING)


def test_a_loaded_model_can_be_trained_without_touching_its_files(converted: Path) -> None:
    model = load_model(converted)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert damaged_files(converted) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_number_format_is_kept_or_chosen(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = convert_tiny(tmp_path, dtype=str(dtype).removeprefix("torch."))
    assert {parameter.dtype for parameter in load_model(folder).parameters()} == {dtype}
    chosen = load_model(folder, dtype=torch.float64)
    assert {parameter.dtype for parameter in chosen.parameters()} == {torch.float64}


def test_the_header_tells_what_the_folder_holds(converted: Path) -> None:
    header = read_header(converted)
    assert header.config.name == "tiny"
    assert infer_sizes(TINY, shapes_of(load_file(converted / "model.safetensors"))) == header.config
    assert sum(header.parameters.values()) == sum(tensor.numel() for tensor in reference().merged.values())
    assert header.tensors == len(reference().merged)
    assert header.files.keys() == {path.name for path in converted.iterdir()} - {"x2roto.json"}
    assert header.sources.keys() == {
        "checkpoint/pytorch_model.bin",
        *(f"base/{name}" for name in ("model.safetensors", "config.json", "tokenizer.json")),
        "base/tokenizer_config.json",
    }
    assert {licence.licence for licence in header.licences} == {"MIT", "Apache-2.0"}


def test_whoever_can_read_the_folder_can_read_its_files(converted: Path) -> None:
    for path in converted.iterdir():
        assert path.stat().st_mode & 0o666 == converted.stat().st_mode & 0o666


def test_the_tokenizer_ends_with_the_three_tokens(converted: Path) -> None:
    tokenizer = Tokenizer.from_file(str(converted / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == ROWS
    ids = [tokenizer.token_to_id(token) for token in ("<SEG>", "<p>", "</p>")]
    assert ids == [ROWS - 3, ROWS - 2, ROWS - 1]
    assert tokenizer.decode(ids) == ""


def test_a_large_model_is_written_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module, "SHARD_BYTES", 100_000)
    folder = convert_tiny(tmp_path)
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(files)
    assert index["metadata"]["total_size"] == 2 * sum(t.numel() for t in reference().merged.values())
    assert load_model(folder).state_dict().keys() >= reference().merged.keys()


@pytest.mark.parametrize(
    ("sizes", "shards"),
    [
        ([], [[]]),
        ([4, 4, 2], [["0", "1", "2"]]),
        ([4, 4, 3], [["0", "1"], ["2"]]),
        ([4, 99, 4], [["0"], ["1"], ["2"]]),
    ],
)
def test_shards_stay_below_the_limit(sizes: list[int], shards: list[list[str]]) -> None:
    assert plan_shards({str(number): size for number, size in enumerate(sizes)}, limit=10) == shards


def test_a_failed_conversion_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = convert_tiny(tmp_path)
    checkpoint, base = tmp_path / "pytorch_model.bin", tmp_path / "base"
    with pytest.raises(OutputError, match="exists already"):
        convert(checkpoint, base, folder, config=TINY)

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(convert_module, "save_file", full_disk)
        with pytest.raises(OutputError, match=r"cannot write .*No space left"):
            convert(checkpoint, base, folder, config=TINY, replace=True)
    assert damaged_files(folder) == []

    convert(checkpoint, base, folder, config=TINY, dtype="float16", replace=True)
    assert read_header(folder).dtype == "float16"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "pytorch_model.bin", "tiny"]


def test_a_folder_that_is_no_model_is_never_replaced(tmp_path: Path) -> None:
    checkpoint, base = reference().write(tmp_path)
    with pytest.raises(OutputError, match="no model folder"):
        convert(checkpoint, base, base, config=TINY, replace=True)


def test_sizes_in_the_header_give_way_to_the_weights(model_copy: Path) -> None:
    _edit_header(model_copy, lambda h: h["config"]["decoder"].update(queries=999, layers=1))
    _edit_header(model_copy, lambda h: h["config"]["language"]["text_config"].update(hidden_size=7))
    config, _, tensors = load_state(model_copy)
    assert config.decoder == TINY.decoder
    assert config.language["text_config"]["hidden_size"] == tensors[EMBEDDING].shape[1]
    load_model(model_copy)


def _edit_header(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "x2roto.json"
    header = json.loads(path.read_text())
    change(header)
    path.write_text(json.dumps(header))


HEADER_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "other schema": (lambda h: h.update(schema=2), "is of schema 2, not 1"),
    "key missing": (lambda h: h.pop("dtype"), "exactly the keys"),
    "key unknown": (lambda h: h.update(extra=1), "exactly the keys"),
    "config no object": (lambda h: h.update(config=[]), "config must be an object"),
    "config key unknown": (lambda h: h["config"].update(depth=3), "config must be an object with keys"),
    "part no object": (lambda h: h["config"].update(memory=5), "config.memory must be an object"),
    "text for a number": (lambda h: h["config"].update(dim="32"), "config.dim must be of type int"),
    "number for a list": (lambda h: h["config"]["encoder"].update(heads=2), "heads must be a list of whole"),
    "text in a list": (lambda h: h["config"]["encoder"].update(heads=["2"]), "heads must be a list of whole"),
    "bad licences": (lambda h: h.update(licences=[{"x": 1}]), "damaged licences"),
    "tensor count": (lambda h: h.update(tensors=3), "tensors, its header says 3"),
    "heads": (lambda h: h["config"]["encoder"].update(heads=[3, 2, 2, 2]), "encoder.heads 3 cannot belong"),
    "stages": (lambda h: h["config"]["encoder"].update(heads=[1, 2]), "which have 4 stages"),
    "windows": (lambda h: h["config"]["encoder"].update(windows=[4, 4, 4, 2]), "a first window of 8"),
    "global blocks": (lambda h: h["config"]["encoder"].update(global_blocks=[99]), "which have 5 blocks"),
    "pyramid levels": (lambda h: h["config"]["encoder"].update(fpn_top_down_levels=[4]), "4 stages"),
    "query stages": (lambda h: h["config"]["encoder"].update(query_stages=4), "4 stages"),
    "pixel heads": (lambda h: h["config"]["pixel_decoder"].update(heads=5), "pixel_decoder.heads 5"),
    "decoder heads": (lambda h: h["config"]["decoder"].update(heads=0), "decoder.heads 0"),
    "no memory": (lambda h: h["config"]["memory"].update(capacity=0), "at least one frame"),
    "deepstack": (
        lambda h: h["config"]["language"]["vision_config"].update(deepstack_visual_indexes=[0]),
        "3 mergers in 4 blocks",
    ),
    "vision heads": (lambda h: h["config"]["language"]["vision_config"].update(num_heads=3), "num_heads 3"),
    "no network": (
        lambda h: h["config"]["language"]["text_config"].update(hidden_act=5),
        "no network can be built",
    ),
}


@pytest.mark.parametrize("fault", HEADER_FAULTS)
def test_a_header_that_is_wrong_is_refused(fault: str, model_copy: Path) -> None:
    change, message = HEADER_FAULTS[fault]
    _edit_header(model_copy, change)
    with pytest.raises(ModelError) as raised:
        load_model(model_copy)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not valid JSON"), ("[]", "no JSON object"), (None, "cannot read")]
)
def test_a_header_that_cannot_be_read_is_refused(text: str | None, message: str, model_copy: Path) -> None:
    header = model_copy / "x2roto.json"
    header.unlink() if text is None else header.write_text(text)
    with pytest.raises(ModelError, match=message):
        load_model(model_copy)


def test_damaged_weights_are_refused(model_copy: Path) -> None:
    _cut(model_copy / "model.safetensors")
    with pytest.raises(ModelError, match="damaged or cut short"):
        load_model(model_copy)


def test_other_weights_under_the_same_header_are_refused(model_copy: Path) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(model_copy / "model.safetensors").items()}
    tensors["surplus"] = tensors.pop("mlm_projector.model.0.bias")
    save_file(tensors, model_copy / "model.safetensors")
    assert damaged_files(model_copy) == ["model.safetensors"]
    with pytest.raises(ModelError, match=r"1 missing: mlm_projector.model.0.bias; 1 unexpected: surplus"):
        load_model(model_copy)


# --- Finding ---------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("X2ROTO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("X2ROTO_MODEL", raising=False)
    return tmp_path / "cache"


def _install(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "x2roto.json").write_text("{}")
    return folder


def test_a_model_is_found_by_path_by_variable_and_by_name(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_path, named = _install(tmp_path / "mine"), _install(cache / "models" / "other")
    released = _install(cache / "models" / RELEASED_MODEL)
    if PACKAGED_MODEL not in {model.name for model in installed_models()}:
        assert find_model() == released
    small = _install(cache / "models" / PACKAGED_MODEL)
    assert find_model() == small
    assert notice(released) == "model x2sam-4b"
    assert notice() == "model x2sam-nano, the small one; the full one: --model x2sam-4b"
    assert find_model("other") == named
    monkeypatch.setenv("X2ROTO_MODEL", "other")
    assert find_model() == named
    assert find_model(by_path) == by_path


def test_a_model_that_is_not_there_tells_what_is(cache: Path, tmp_path: Path) -> None:
    shipped = {model.name for model in installed_models()}
    _install(cache / "models" / "mine")
    with pytest.raises(ModelError, match=r"no model 'yours' .*mine.*'x2roto models pull'"):
        find_model("yours")
    assert {model.name for model in installed_models()} == shipped | {"mine"}
    with pytest.raises(ModelError, match=r"has no x2roto.json"):
        find_model(tmp_path)


def test_unfinished_models_cannot_be_named(cache: Path) -> None:
    before = installed_models()
    _install(cache / "models" / ".mine.123.partial")
    assert installed_models() == before


# --- Golden data -----------------------------------------------------------------------------------


def test_golden_files_convert_to_what_they_merge_to(tmp_path: Path) -> None:
    from x2roto.engine.parity import golden_config

    golden = golden_folder() / "engine"
    if not (golden / "checkpoint.safetensors").is_file():
        pytest.skip(f"no golden checkpoint in {golden}")
    index = json.loads((golden / "index.json").read_text())
    config, alpha = golden_config(index), index["lora"]["alpha"]
    checkpoint, base = golden / "checkpoint.safetensors", tmp_path / "base_vlm.safetensors"
    shutil.copyfile(golden / "base_vlm.safetensors", base)
    write_tokenizer(tmp_path, config.language["text_config"]["vocab_size"] - 3)

    convert(checkpoint, base, tmp_path / "golden", config=config, dtype="float32", lora_alpha=alpha)
    state = load_model(tmp_path / "golden").state_dict()
    merged = build(config, merged_state(checkpoint, base, lora_alpha=alpha)).state_dict()
    _assert_equal(state, merged)
    assert read_header(tmp_path / "golden").config.decoder == config.decoder
