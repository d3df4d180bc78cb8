"""Frames as network inputs against the reference's processors, and its choice of frames."""

from __future__ import annotations

import hashlib
import json
import re
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.golden.folder import cases, golden_folder
from x2roto.engine.preprocess import (
    PatchConfig,
    count_at_rate,
    image_patches,
    image_size,
    normalise,
    patch_values,
    prompt_masks,
    resampled_indices,
    sample_indices,
    segmentor_frames,
    span_chunks,
    step_seconds,
    stride_chunks,
    video_patches,
    video_size,
)
from x2roto.errors import InputError

FILES = {path: json.loads(path.read_text()) for path in cases("tasks", "preprocess")}
pytestmark = pytest.mark.skipif(not FILES, reason="no preprocessing in the golden folder")


def of_kind(kind: str) -> list[Any]:
    return [pytest.param(path, content, id=path.stem) for path, content in FILES.items() if content["kind"] == kind]


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path.with_suffix(".npz")) as stored:
        return {key: stored[key] for key in stored.files}


def input_frames(content: dict[str, Any]) -> list[NDArray[np.uint8]]:
    """The frames a case names, in words: 'inputs/x.npz key frames, first 3', 'inputs/x.jpg', with a 'pre'."""
    said = content["input"]["file"]
    path = golden_folder() / "tasks" / said.split()[0]
    if path.suffix == ".npz":
        with np.load(path) as stored:
            frames = list(stored[re.search(r"key (\w+)", said).group(1)])
        first = re.search(r"first (\d+)", said)
        frames = frames[: int(first.group(1))] if first else frames
    else:
        with Image.open(path) as image:
            frames = [np.asarray(image.convert("RGB"))]
    return [prepared(frame, content["input"].get("pre", "")) for frame in frames]


def prepared(frame: NDArray[np.uint8], pre: str) -> NDArray[np.uint8]:
    resize = re.search(r"resize\(\((\d+), (\d+)\), (\w+)\)", pre)
    if not resize:
        return frame
    size = int(resize.group(1)), int(resize.group(2))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling[resize.group(3)]))


def config_of(content: dict[str, Any]) -> PatchConfig:
    hub, image = content["hub_config"], content.get("effective_size")
    default = PatchConfig()
    return PatchConfig(
        patch=hub["patch_size"],
        temporal=hub["temporal_patch_size"],
        merge=hub["merge_size"],
        image_pixels=(image["shortest_edge"], image["longest_edge"]) if image else default.image_pixels,
        video_pixels=(hub["size"]["shortest_edge"], hub["size"]["longest_edge"]),
        mean=tuple(hub["image_mean"]),
        std=tuple(hub["image_std"]),
    )


def check_summary(values: torch.Tensor, outputs: dict[str, Any], tolerance: float) -> None:
    assert list(values.shape) == outputs["shape"]
    assert values.mean(dtype=torch.float64).item() == pytest.approx(outputs["mean"], abs=tolerance)
    assert values.std().item() == pytest.approx(outputs["std"], abs=tolerance)
    assert values.abs().sum(dtype=torch.float64).item() == pytest.approx(outputs["abs_sum"], rel=tolerance)


def largest_difference(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max())


def check_close(ours: NDArray[Any], theirs: NDArray[Any], content: dict[str, Any]) -> None:
    """Same resampler, so rounding only; a JPEG may decode one level apart, which the file allows for."""
    jpeg = content["input"]["file"].split()[0].endswith(".jpg")
    tolerance = content["tolerance"]["max_abs"] if jpeg else 1e-6
    difference = largest_difference(ours, theirs)
    assert difference <= tolerance, f"largest difference {difference:g} above {tolerance:g}"


@pytest.mark.parametrize(("path", "content"), of_kind("sam2_image_processor"))
def test_segmentor_frames(path: Path, content: dict[str, Any]) -> None:
    stored = arrays(path)
    size = content["outputs"]["shape"][-1]
    values = normalise(segmentor_frames(input_frames(content), size))
    check_summary(values, content["outputs"], 1e-3)
    for key, wanted in stored.items():
        if key == "strided":
            check_close(values.numpy()[..., ::48, ::48], wanted, content)
        elif key.startswith("crop"):
            top, left, side = map(int, re.fullmatch(r"crop_y(\d+)_x(\d+)_(\d+)", key).groups())
            check_close(values.numpy()[..., top : top + side, left : left + side], wanted, content)


@pytest.mark.parametrize(
    ("path", "content"),
    [case for case in of_kind("sam2_image_processor") if "vprompt_masks" in case.values[1]],
)
def test_prompt_masks(path: Path, content: dict[str, Any]) -> None:
    said = content["vprompt_input"].split()
    with np.load(golden_folder() / "tasks" / said[0]) as stored:
        masks = stored["masks"] > 0
    shape = content["vprompt_masks"]["shape"]
    squares = prompt_masks(list(masks), shape[-1])
    assert list(squares.shape) == shape
    packed = np.packbits(squares.numpy().reshape(shape[0], -1), axis=1)
    assert np.array_equal(packed, arrays(path)["vprompt_masks_packed"])


@pytest.mark.parametrize(("path", "content"), of_kind("qwen3vl_image_processor"))
def test_image_patches(path: Path, content: dict[str, Any]) -> None:
    config = config_of(content)
    (frame,) = input_frames(content)
    patches = image_patches(frame, config)
    check_patches(path, content, patches.grid, content["image_grid_thw"], patch_values(patches.rows, config))


@pytest.mark.parametrize(("path", "content"), of_kind("qwen3vl_video_processor"))
def test_video_patches(path: Path, content: dict[str, Any]) -> None:
    config = config_of(content)
    frames = input_frames(content)
    if content["call_kwargs"].get("do_sample_frames", True):
        frames = [frames[index] for index in resampled_indices(len(frames))]
    patches = video_patches(frames, config)
    check_patches(path, content, patches.grid, content["video_grid_thw"], patch_values(patches.rows, config))


def check_patches(
    path: Path,
    content: dict[str, Any],
    grid: tuple[int, int, int],
    grids: list[list[int]],
    values: torch.Tensor,
) -> None:
    assert [list(grid)] == grids
    check_summary(values, content["outputs"], 1e-3)
    stored = arrays(path)
    check_close(values.numpy()[stored["rows"]], stored["patches"], content)


@pytest.mark.parametrize(("path", "content"), of_kind("smart_resize tables"))
def test_smart_resize(path: Path, content: dict[str, Any]) -> None:
    image, video = content["image"], content["video"]
    config = PatchConfig(
        patch=image["factor"] // PatchConfig().merge,
        temporal=video["temporal_factor"],
        image_pixels=(image["min_pixels"], image["max_pixels"]),
        video_pixels=(video["min_pixels"], video["max_pixels"]),
    )
    assert config.factor == image["factor"] == video["factor"]
    for *size, wanted in image["cases"]:
        check_size(lambda size=size: image_size(*size, config), size, wanted)
    for *size, wanted in video["cases"]:
        check_size(lambda size=size: video_size(*size, config), size, wanted)


def check_size(resize: Any, size: list[int], wanted: list[int] | str) -> None:
    if isinstance(wanted, str):
        with pytest.raises(InputError):
            resize()
    else:
        assert list(resize()) == wanted, size


def sampling(key: str) -> list[Any]:
    return [
        pytest.param(content[key]["cases"], id=path.stem)
        for path, content in FILES.items()
        if content["kind"] == "frame sampling"
    ]


@pytest.mark.parametrize("rows", sampling("directory_or_dataset"))
def test_chunks_of_a_data_set(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        total, count = row["total"], row["num_frames"]
        chunks = span_chunks(total, count) if row["mode"] == "span" else stride_chunks(total, count, row["stride"])
        assert list(chain(*chunks)) == row["out"], row


@pytest.mark.parametrize("rows", sampling("video_file_demo"))
def test_frames_of_a_video_file(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert_same_choice(row, "src_fps")


def assert_same_choice(row: dict[str, Any], rate_key: str) -> None:
    total = row.get("total", row.get("source_frames"))
    if not isinstance(row.get("out", row.get("indices")), list):
        with pytest.raises(InputError):
            count_at_rate(total, row[rate_key], row["fps"])
        return
    count = row["num_frames"] or count_at_rate(total, row[rate_key], row["fps"])
    assert sample_indices(total, count) == row.get("out", row.get("indices")), row


@pytest.mark.parametrize("rows", sampling("qwen_processor"))
def test_frames_the_video_processor_keeps(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert resampled_indices(row["total"], row["num_frames"], row["src_fps"]) == row["out"], row


@pytest.mark.parametrize("rows", sampling("timestamps"))
def test_time_stamps(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert step_seconds(row["indices"], row["fps"]) == pytest.approx(row["out"], abs=1e-12), row


@pytest.mark.parametrize(("path", "content"), of_kind("load_video"))
def test_indices_of_the_demo_video(path: Path, content: dict[str, Any]) -> None:
    for row in content["cases"]:
        assert_same_choice(row, "source_fps")
        assert len(row["indices"]) == row["n_loaded"]


@pytest.mark.parametrize(("path", "content"), of_kind("load_video"))
def test_pixels_of_the_demo_video(path: Path, content: dict[str, Any]) -> None:
    """The mean is allowed one level, since another FFmpeg may differ by that; hashes then cannot agree.

    A folder without the video has its first frame as a JPEG, which has the same mean."""
    inputs = golden_folder() / "tasks" / "inputs"
    video = inputs / Path(content["video"].split()[0]).name
    if not video.is_file():
        still = Image.open(inputs / "frame0_full.jpg")
        for row in content["cases"]:
            assert list(still.size) == row["frame_size_wh"]
            assert np.asarray(still).mean() == pytest.approx(row["first_frame_mean"], abs=1)
        return
    with av.open(video) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for row in content["cases"]:
        assert len(frames) == row["source_frames"]
        chosen = [frames[index] for index in sample_indices(len(frames), row["n_loaded"])]
        assert [chosen[0].shape[1], chosen[0].shape[0]] == row["frame_size_wh"]
        assert chosen[0].mean() == pytest.approx(row["first_frame_mean"], abs=1)
        if chosen[0].mean() == row["first_frame_mean"]:
            assert [hashlib.sha256(frame.tobytes()).hexdigest() for frame in chosen] == row["frame_sha256"]


def test_the_kinds_of_file_are_all_known() -> None:
    known = {
        "sam2_image_processor",
        "qwen3vl_image_processor",
        "qwen3vl_video_processor",
        "smart_resize tables",
        "frame sampling",
        "load_video",
    }
    assert {content["kind"] for content in FILES.values()} <= known
