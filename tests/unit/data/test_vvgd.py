"""The V-VGD builder: what it writes, that it repeats, and that `check` finds planted faults."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from x2roto.cli.vvgd import app
from x2roto.data.annotations import decode_mask, encode_mask
from x2roto.data.sample import PROMPT_KINDS
from x2roto.data.video import VIDEO_LAYOUTS
from x2roto.data.video.miniature import scenes
from x2roto.data.vvgd import build, check, write
from x2roto.errors import InputError

SEED = 5
RUNNER = CliRunner()
# Of each source: its reader, the parts of it to build from, its pictures, and where the reader wants the result.
LAYOUTS = {
    "ytvis19": (
        "yt19_vgd",
        ("ytvis19/valid/valid.json",),
        "ytvis19/valid/JPEGImages",
        "annotations/vid_vgdseg_yt19_val.json",
    ),
    "vipseg": (
        "vipseg_vgd",
        ("vipseg_720p/panoptic_gt_VIPSeg_val.json", "vipseg_720p/panomasksRGB"),
        "vipseg_720p/images",
        "annotations/vid_vgdseg_vipseg_val.json",
    ),
}


class Made:
    """A miniature and the file built for it."""

    def __init__(self, root: Path, layout: str) -> None:
        self.reader, parts, pictures, file = LAYOUTS[layout]
        VIDEO_LAYOUTS[self.reader].miniature(root, SEED)
        self.layout, self.root = layout, root
        self.sources = [root / part for part in parts]
        self.pictures, self.file = root / pictures, root / file

    @property
    def entries(self) -> Any:
        return json.loads(self.file.read_text())


@pytest.fixture(params=LAYOUTS)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    return Made(tmp_path / "data", request.param)


def test_every_thing_has_four_prompts_on_every_frame_it_is_seen_on(made: Made) -> None:
    entries = made.entries
    assert len(entries) == 2
    hidden = 2 if made.layout == "vipseg" else 0  # the unlabelled strip
    for entry, scene in zip(entries, scenes(SEED), strict=True):
        assert len(entry["image_files"]) == len(entry["image_sizes"]) == len(scene.names)
        for frame, objects in enumerate(entry["annotations"]):
            seen = [mask[:, hidden:] for mask in scene.masks[:, frame] if mask.any()]
            assert [each["area"] for each in objects] == [int(mask.sum()) for mask in seen]
            for record in objects:
                mask = decode_mask(record["segmentation"], scene.size, made.file)
                x0, y0, x1, y1 = (int(edge) for edge in record["bbox"])
                assert mask[y0:y1, x0:x1].sum() == mask.sum() == record["area"]
                assert all(edge.any() for edge in (mask[y0], mask[y1 - 1], mask[:, x0], mask[:, x1 - 1]))
                assert set(record["visual_prompts"]) == {f"{kind}_visual_prompt" for kind in PROMPT_KINDS}
                for prompt in record["visual_prompts"].values():
                    assert decode_mask(prompt, scene.size, made.file).any()
                assert record["id"] % 100 == frame
    categories = {record["category_id"] for entry in entries for frame in entry["annotations"] for record in frame}
    assert categories == ({61, 80} if made.layout == "vipseg" else {1, 2})


def test_the_reader_gives_back_what_was_built(made: Made) -> None:
    for prompt in PROMPT_KINDS:
        dataset = VIDEO_LAYOUTS[made.reader].open(made.root, "val", prompt)
        for index in range(len(dataset)):
            sample = dataset[index]
            name = sample.key.partition("/")[0]
            entry = next(each for each in made.entries if each["image_files"][0].startswith(f"{name}/"))
            for category, region in zip(sample.categories, sample.targets, strict=True):
                record = next(
                    each for each in entry["annotations"][sample.prompt_frame] if each["category_id"] == category.id
                )
                stored = decode_mask(record["visual_prompts"][f"{prompt}_visual_prompt"], sample.size, made.file)
                np.testing.assert_array_equal(region, stored)


def test_a_seed_gives_one_file(made: Made, tmp_path: Path) -> None:
    paths = []
    for name, seed in (("first", 7), ("again", 7), ("other", 8)):
        paths.append(tmp_path / f"{name}.json")
        assert write(build(made.layout, made.sources, seed), paths[-1]) == 2
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].read_bytes() != paths[2].read_bytes()


def test_crowds_and_stuff_are_left_out(made: Made, tmp_path: Path) -> None:
    table = json.loads(made.sources[0].read_text())
    records = table["annotations"]
    if made.layout == "vipseg":
        records = [one for video in records for frame in video["annotations"] for one in frame["segments_info"]]
    kept = {61, 80} if made.layout == "vipseg" else {1, 2}
    crowd = min(record["category_id"] for record in records if record["category_id"] in kept)
    for record in records:
        record["iscrowd"] = int(record["category_id"] == crowd)
    made.sources[0].write_text(json.dumps(table))
    found = {
        record["category_id"]
        for entry in build(made.layout, made.sources, 0)
        for frame in entry["annotations"]
        for record in frame
    }
    assert found == kept - {crowd}


def test_a_failed_build_leaves_nothing(made: Made, tmp_path: Path) -> None:
    damaged = made.sources[-1] / "clip1/00002.png" if made.layout == "vipseg" else made.sources[0]
    if damaged.suffix == ".png":
        damaged.write_bytes(b"no picture")
    else:
        damaged.write_text(damaged.read_text().replace('"counts": "', '"counts": "~', 1))
    out = tmp_path / "out" / "file.json"
    with pytest.raises(InputError, match=damaged.name):
        write(build(made.layout, made.sources, 0), out)
    assert not list(out.parent.iterdir())


def test_the_wrong_sources_are_refused(made: Made) -> None:
    with pytest.raises(InputError, match=f"{made.layout} is built from its"):
        list(build(made.layout, [*made.sources, made.file], 0))


# ---- checking ---------------------------------------------------------------------------------------------


def first(entries: Any) -> Any:
    return entries[0]["annotations"][0][0]


def other_size(entries: Any) -> None:
    first(entries)["segmentation"]["size"][0] += 1


def empty_prompt(entries: Any) -> None:
    size = entries[0]["image_sizes"][0]
    first(entries)["visual_prompts"]["box_visual_prompt"] = encode_mask(np.zeros(size, np.bool_))


def point_elsewhere(entries: Any) -> None:
    record, size = first(entries), entries[0]["image_sizes"][0]
    mask = decode_mask(record["segmentation"], (size[0], size[1]), Path())
    record["visual_prompts"]["point_visual_prompt"] = encode_mask(~mask)


FAULTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "lost prompt": (lambda entries: first(entries)["visual_prompts"].pop("scribble_visual_prompt"), "scribble"),
    "empty prompt": (empty_prompt, "the box of object .* is empty"),
    "point elsewhere": (point_elsewhere, "the point of object .* is not on it"),
    "other size": (other_size, "the mask of object"),
    "damaged prompt": (
        lambda entries: first(entries)["visual_prompts"]["mask_visual_prompt"].update(counts="~"),
        "the mask prompt of object",
    ),
    "wrong area": (lambda entries: first(entries).update(area=7), "says 7 pixels, its mask has"),
    "no category": (lambda entries: first(entries).pop("category_id"), "has no 'category_id'"),
    "object twice": (lambda entries: entries[0]["annotations"][0].append(first(entries)), "is there twice"),
    "video twice": (lambda entries: entries.append(entries[0]), "is there twice"),
    "fewer frames": (lambda entries: entries[0]["annotations"].pop(), "annotations for 4 frames"),
    "lost picture": (lambda entries: entries[0]["image_files"].__setitem__(0, "clip0/9.jpg"), "9.jpg is missing"),
    "other picture": (
        lambda entries: entries[0]["image_files"].__setitem__(0, "clip1/00000.jpg"),
        "clip1/00000.jpg is not 64x48",
    ),
    "no objects": (lambda entries: entries[0].update(annotations=[[]] * 5), "shows no object"),
}


def test_a_sound_file_has_no_faults(made: Made) -> None:
    assert list(check(made.file, made.pictures)) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(made: Made, fault: str, tmp_path: Path) -> None:
    plant, words = FAULTS[fault]
    entries = made.entries
    plant(entries)
    path = tmp_path / "planted.json"
    path.write_text(json.dumps(entries))
    found = list(check(path, made.pictures))
    assert found
    assert all("\n" not in line for line in found)
    assert any(re.search(words, line) for line in found), found


@pytest.mark.parametrize("text", ["", "[{", "{}", "[]", "[3]"])
def test_a_file_of_something_else_is_one_fault(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    assert len(list(check(path, tmp_path))) == 1


# ---- command line -----------------------------------------------------------------------------------------


def test_the_command_builds_and_checks(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "new" / "file.json"
    sources = [str(source) for source in made.sources]
    result = RUNNER.invoke(app, ["build", *sources, "-o", str(out), "--layout", made.layout, "--seed", str(SEED)])
    assert result.exit_code == 0, result.output
    assert out.read_bytes() == made.file.read_bytes()
    result = RUNNER.invoke(app, ["check", str(out), "--data", str(made.pictures)])
    assert result.exit_code == 0
    assert result.stdout == ""
    next(made.pictures.glob("clip1/*.jpg")).unlink()
    result = RUNNER.invoke(app, ["check", str(out), "--data", str(made.pictures)])
    assert result.exit_code == 1
    assert result.stdout.count("\n") == 1
    assert result.stdout.rstrip().endswith("is missing")
