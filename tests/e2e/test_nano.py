"""The model that ships with the package: what it weighs, that it says what it is, and that it really cuts."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.e2e.conftest import Run
from x2roto.clip import Frame
from x2roto.device import load
from x2roto.engine.model_folder import PACKAGED_MODEL, damaged_files, find_model, read_header
from x2roto.engine.segmenter import load_segmenter
from x2roto.engine.weights import COMPARING
from x2roto.evaluate.metrics.boundary import region_similarity
from x2roto.job import EngineSpec
from x2roto.prompt import Box, Classes, Describe, Text
from x2roto.record import NAME
from x2roto.train.footage import Material, Shape, film
from x2roto.train.footage.dataset import FilmedClip

MOST_BYTES = 15 << 20
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
# Held back from training, which draws its clips from other seeds.
SEEDS = [(99, number) for number in range(3)]


@pytest.fixture(autouse=True)
def nothing_else(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No model but the packaged one."""
    monkeypatch.setenv("X2ROTO_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("X2ROTO_MODEL", raising=False)


def filmed(seed: tuple[int, int], frames: int = 8) -> FilmedClip:
    return film(Material.open(None), seed, Shape(180, 320, (frames,)), frames)


def written(clip: FilmedClip, folder: Path) -> Path:
    assert clip.rendered.frames is not None
    folder.mkdir()
    for index, rgb in enumerate(clip.rendered.frames, start=1001):
        Image.fromarray(rgb).save(folder / f"shot.{index}.png")
    return folder


def box_of(mask: NDArray[np.bool_]) -> str:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return f"it={columns[0]},{rows[0]},{columns[-1] + 1},{rows[-1] + 1}"


def test_it_is_the_default_small_and_whole() -> None:
    folder = find_model()
    assert folder == Path(str(files("x2roto.engine"))) / "models" / PACKAGED_MODEL
    assert (folder / "model.safetensors").stat().st_size <= MOST_BYTES
    assert (folder / "tokenizer.json").stat().st_size <= MOST_BYTES / 100
    assert damaged_files(folder) == []
    header = read_header(folder)
    assert header.dtype == "float16"
    assert [licence.licence for licence in header.licences] == ["Apache-2.0"]


@pytest.mark.parametrize(
    ("able", "dtype"),
    [({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16), ({"avx2": True}, torch.float32)],
)
def test_it_runs_on_a_cpu_in_what_that_computes_in_fast(
    able: dict[str, bool], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    model = load(EngineSpec(device="cpu")).model
    assert {name for name, one in model.named_parameters() if one.dtype != dtype} == {
        name for name, _ in model.named_parameters() if dtype != torch.float32 and name.startswith(COMPARING)
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_it_cuts_what_a_box_is_drawn_around(seed: tuple[int, int], run: Run, tmp_path: Path) -> None:
    clip = filmed(seed)
    masks = clip.rendered.masks
    actor = int(masks[:, 0].sum((1, 2)).argmax())
    source, out = written(clip, tmp_path / "clip"), tmp_path / "out"
    result = run("segment", source, "--model", PACKAGED_MODEL, "--box", box_of(masks[actor, 0]), "-o", out)
    assert result.code == 0, result.err
    assert result.err.splitlines()[0].startswith(f"model {PACKAGED_MODEL}, the small one; the full one: ")
    mattes = [np.asarray(Image.open(path)) for path in sorted(out.glob("*.png"))]
    assert len(mattes) == len(masks[actor])
    found = [matte > np.iinfo(matte.dtype).max // 2 for matte in mattes]
    assert np.mean([region_similarity(true, seen) for true, seen in zip(masks[actor], found, strict=True)]) > 0.5


def test_it_tells_what_it_makes_of_words(run: Run, tmp_path: Path) -> None:
    source, out = written(filmed(SEEDS[0], 3), tmp_path / "clip"), tmp_path / "out"
    words = ("--text", "chap=that chap in a red hoodie", "--text", "sky=the sky")
    asked = ("segment", source, "--model", PACKAGED_MODEL, *words)
    plan = json.loads(run(*asked, "-o", out, "--dry-run").out)
    result = run(*asked, "-o", out)
    _, *said = result.err.splitlines()[:3]
    assert "'that chap in a red hoodie' as 'the man in red'" in said[0]
    assert "has not learnt what 'the sky' is" in said[1]
    assert plan["notes"][-2:] == said
    assert json.loads((out / NAME).read_text())["summary"]["notes"] == said


def test_it_names_what_it_sees_and_cuts_it(run: Run, tmp_path: Path) -> None:
    clip = filmed(SEEDS[0], 4)
    source, out = written(clip, tmp_path / "clip"), tmp_path / "out"
    result = run("segment", source, "--model", PACKAGED_MODEL, "--describe", "-o", out)
    assert result.code == 0, result.err
    assert "people" in result.err.splitlines()[-1]
    people = clip.rendered.masks[[actor.label.nouns[-1] == "person" for actor in clip.scene.actors]]
    for name in ("person", "person_2"):
        mattes = [np.asarray(Image.open(path)) for path in sorted(out.glob(f"**/*{name}.*.png"))]
        found = np.stack([matte > np.iinfo(matte.dtype).max // 2 for matte in mattes])
        assert max(region_similarity(person, found) for person in people) > 0.5
    said = run("chat", source, "What do you see?", "--model", PACKAGED_MODEL)
    assert said.out.decode() in result.err
    assert run("chat", source, "Who is it?", "--model", PACKAGED_MODEL).code == 2


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
@pytest.mark.parametrize(
    "prompt", [Box("it", 40, 30, 100, 90), Text("man", "the man"), Classes("all", things=("man", "ball")), Describe()]
)
def test_it_runs_in_half_precision(prompt: Box | Text | Classes | Describe, device: str) -> None:
    segmenter = load_segmenter(None, device, torch.bfloat16)
    clip = filmed(SEEDS[0], 3).rendered.frames
    assert clip is not None
    rgb = list(clip)
    frames = [Frame(index, None, each) for index, each in enumerate(rgb)]
    for query in segmenter.read((prompt,), rgb, {None: rgb[0]}, looked=dict(enumerate(rgb))):
        for result in segmenter.track(query).step(frames):
            assert all(seen.logits.isfinite().all() for seen in result.seen)
