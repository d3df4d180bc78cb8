"""Image layouts: whatever is missing or broken is one InputError that names the file."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.data.image_layouts import NAMES, miniature, opened, read_all, rewrite, tables
from x2roto.data.annotations import (
    check_files,
    decode_mask,
    encode_mask,
    field,
    mask_area,
    read_labels,
    read_rgb,
    write_picture,
)
from x2roto.data.image.refer import read_pickle
from x2roto.errors import InputError

# Layouts whose masks are pictures, and the folders these are in.
MAPS = {
    "coco_panoptic": "panoptic_val2017",
    "coco_semantic": "panoptic_semseg_val2017",
    "ade20k_panoptic": "ade20k_panoptic_val",
    "ade20k_semantic": "annotations_detectron2/validation",
}
# Its polygons have no size, its questions no class.
OUTLINED = "reasonseg"
CLASSLESS = (OUTLINED, "grandf", "coco_int")
HERE = Path("table.json")


def _fault(name: str, root: Path) -> InputError:
    """What opening or reading everything raises: one line, naming a file."""
    with pytest.raises(InputError) as caught:
        read_all(name, root)
    assert "\n" not in str(caught.value)
    assert str(root) in str(caught.value)
    assert caught.value.path is not None
    return caught.value


# ---- files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_opening_misses_every_file_that_reading_would(name: str, tmp_path: Path) -> None:
    root = miniature(name, tmp_path)
    wanted = {path for sample, _ in read_all(name, root) for path in sample.frames}
    missed = set()
    for path in [path for path in sorted(root.rglob("*")) if path.is_file()]:
        content = path.read_bytes()
        path.unlink()
        if str(path) in _said_of_opening(name, root):
            missed.add(path)
        else:
            # Nothing that is read needs the file, so the layout has no use for it in this split.
            read_all(name, root)
        path.write_bytes(content)
    assert wanted <= missed
    assert any(path.suffix == ".json" for path in missed)
    if name in MAPS:
        assert set((root / MAPS[name]).iterdir()) <= missed


def _said_of_opening(name: str, root: Path) -> str:
    try:
        opened(name, root)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", NAMES)
def test_damaged_json_is_named(name: str, tmp_path: Path) -> None:
    root = miniature(name, tmp_path)
    for path in tables(root):
        path.write_bytes(path.read_bytes()[:-7])
    assert "not valid JSON" in str(_fault(name, root))


@pytest.mark.parametrize("name", NAMES)
def test_json_of_something_else_is_named(name: str, tmp_path: Path) -> None:
    root = miniature(name, tmp_path)
    for path in tables(root):
        path.write_text('{"hello": [1, 2]}')
    assert "this layout" in str(_fault(name, root))


@pytest.mark.parametrize("name", NAMES)
def test_a_split_that_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no split 'winter'"):
        opened(name, miniature(name, tmp_path), "winter")


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_folder_is_refused(name: str, tmp_path: Path) -> None:
    assert str(tmp_path) in str(_fault(name, tmp_path))


# ---- contents ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NAMES if name != OUTLINED])
def test_a_mask_of_another_size_is_named(name: str, tmp_path: Path) -> None:
    root = miniature(name, tmp_path)
    if name in MAPS:
        damaged = min((root / MAPS[name]).iterdir())
        write_picture(np.zeros((9, 11, 3) if "panoptic" in name else (9, 11), np.uint8), damaged)
        assert str(damaged) in str(_fault(name, root))
        assert "is 11x9" in str(_fault(name, root))
        return
    for path in tables(root):
        rewrite(path, _resize)
    assert "is 11x9" in str(_fault(name, root))


def _resize(record: dict[str, Any]) -> bool:
    if "counts" in record:
        record["size"] = [9, 11]
    return "counts" in record


@pytest.mark.parametrize("name", [name for name in NAMES if name not in CLASSLESS])
def test_an_unknown_class_is_named(name: str, tmp_path: Path) -> None:
    root = miniature(name, tmp_path)
    if name.endswith("semantic"):
        damaged = min((root / MAPS[name]).iterdir())
        write_picture(np.where(read_labels(damaged, (48, 64)) == 1, 77, 0).astype(np.uint8), damaged)
        assert f"{damaged}: label 77" in str(_fault(name, root))
        return
    for path in tables(root):
        rewrite(path, lambda record: _set(record, "category_id", 999))
    assert "category 999" in str(_fault(name, root))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (OUTLINED, "coco_vgd")])
@pytest.mark.parametrize("value", [0, -4, 1 << 20, "48", None])
def test_a_size_no_picture_has_is_named(name: str, value: object, tmp_path: Path) -> None:
    root = miniature(name, tmp_path)
    for path in tables(root):
        rewrite(path, lambda record: _set(record, "height", value))
    if name == "grandf" and value is None:
        # There a size may be left out: the picture tells it.
        assert read_all(name, root)
        return
    assert "damaged" in str(_fault(name, root))


def test_a_size_no_picture_has_is_named_where_sizes_are_pairs(tmp_path: Path) -> None:
    root = miniature("coco_vgd", tmp_path)
    for path in tables(root):
        rewrite(path, lambda record: _set(record, "image_size", [48]))
    assert "has the size [48]" in str(_fault("coco_vgd", root))


def _set(record: dict[str, Any], key: str, value: object) -> bool:
    if key in record:
        record[key] = value
    return key in record


@pytest.mark.parametrize("name", [name for name in NAMES if name != OUTLINED])
def test_a_picture_of_another_size_is_named(name: str, tmp_path: Path) -> None:
    root = miniature(name, tmp_path)
    data = opened(name, root)
    picture = data[0].frames[0]
    write_picture(np.zeros((9, 11, 3), np.uint8), picture)
    with pytest.raises(InputError, match="is 11x9, the annotations say 64x48"):
        read_rgb(picture, data[0].size)


@pytest.mark.parametrize("name", [name for name in MAPS if "panoptic" in name])
def test_a_panoptic_png_that_is_not_of_its_table_is_named(name: str, tmp_path: Path) -> None:
    root = miniature(name, tmp_path)
    first, second = sorted((root / MAPS[name]).iterdir())[:2]
    first.write_bytes(second.read_bytes())
    assert f"{first}: segment" in str(_fault(name, root))


@pytest.mark.parametrize("name", NAMES)
def test_a_text_file_is_no_picture(name: str, tmp_path: Path) -> None:
    root = miniature(name, tmp_path)
    for path in root.rglob("*.jpg"):
        path.write_text("not found")
    assert "cannot be read as a picture" in str(_fault(name, root))


@pytest.mark.parametrize("name", ["refcoco", "refcocog"])
def test_annotations_that_are_not_there_are_named(name: str, tmp_path: Path) -> None:
    root = miniature(name, tmp_path)
    rewrite(root / name / "instances.json", lambda record: _set(record, "annotations", []))
    assert "is of annotation 1" in str(_fault(name, root))


# ---- pickles ----------------------------------------------------------------------------------------------


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path, victim = tmp_path / "refs(unc).p", tmp_path / "ran"
    path.write_bytes(pickle.dumps([{"ref_id": _Bomb(victim)}]))
    with pytest.raises(InputError, match="could run code"):
        read_pickle(path)
    assert not victim.exists()


def test_plain_pickles_are_read(tmp_path: Path) -> None:
    value = [{"a": [1, 2.5, "x\u00e9", (3, None, True)]}]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(value, protocol))
        assert read_pickle(tmp_path / "refs(unc).p") == value


@pytest.mark.parametrize("damage", [b"", b"hello", pickle.dumps([{"a": [1, 2.5, "x", (3,)]}])[:-4], b"\x80\x02s."])
def test_a_damaged_pickle_is_named(damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "refs(unc).p"
    path.write_bytes(damage)
    with pytest.raises(InputError, match="is no pickle of plain lists"):
        read_pickle(path)


# ---- masks ------------------------------------------------------------------------------------------------


def test_masks_go_to_runs_and_back() -> None:
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (7, 3), (48, 64), (300, 200)):
        mask = rng.random((height, width)) < rng.random()
        runs = encode_mask(mask)
        assert (decode_mask(runs, (height, width), HERE) == mask).all()
        assert mask_area(runs, (height, width), HERE) == mask.sum()


def test_parts_of_a_mask_are_joined() -> None:
    left, right = np.zeros((2, 6, 8), np.bool_)
    left[1:4, 1:3], right[2:5, 5:8] = True, True
    joined = decode_mask([encode_mask(left), encode_mask(right)], (6, 8), HERE)
    assert (joined == (left | right)).all()
    polygons = [[1, 1, 3, 1, 3, 4, 1, 4], [5, 2, 8, 2, 8, 5, 5, 5], [0, 0, 1, 1]]
    assert (decode_mask(polygons, (6, 8), HERE) == (left | right)).all()
    assert not decode_mask([], (6, 8), HERE).any()
    assert not decode_mask(None, (6, 8), HERE).any()


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [6, 9], "counts": encode_mask(np.ones((6, 9), np.bool_))["counts"]},
        {"size": [6, 8], "counts": "zz"},
        {"size": [6, 8], "counts": encode_mask(np.eye(6, 8, dtype=np.bool_))["counts"][:-1]},
        {"size": [6, 8], "counts": encode_mask(np.eye(6, 8, dtype=np.bool_))["counts"] + "1"},
        {"size": [6, 8], "counts": [10, 3]},
        {"size": [6, 8], "counts": [60, -12]},
        {"size": [6, 8], "counts": [40.5, 7.5]},
        {"size": [6, 8], "counts": 48},
        {"size": [6, 8]},
        {"counts": "0"},
        [[1, 1, 3, 1, 3, 4, 1]],
        [["a"] * 6],
        [5],
        "rle",
    ],
)
def test_a_mask_that_cannot_be_is_refused(segmentation: Any) -> None:
    with pytest.raises(InputError, match=r"table\.json: the mask of annotation 7 cannot be used"):
        decode_mask(segmentation, (6, 8), HERE, "annotation 7")


# ---- tables -----------------------------------------------------------------------------------------------


def test_fields_have_their_kind() -> None:
    record = {"count": 3, "share": 1, "flag": True, "name": "x"}
    assert field(record, "count", int, HERE) == 3
    assert field(record, "share", float, HERE) == 1
    assert field(record, "name", (int, str), HERE) == "x"
    for key, kind in (("flag", int), ("name", int), ("count", str), ("missing", int)):
        with pytest.raises(InputError, match=key):
            field(record, key, kind, HERE)


def test_missing_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").touch()
    check_files(tmp_path, ["a/1.jpg"])
    with pytest.raises(InputError, match=r"a/2\.jpg is missing, and 1 more"):
        check_files(tmp_path, ["a/1.jpg", "a/2.jpg", "a/3.jpg"])
    with pytest.raises(InputError, match="b is not a folder"):
        check_files(tmp_path, ["b/1.jpg"])
