"""What is known before a run: the shot's name, the frames left after a stop, names that collide."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from tests.media import pictures, write_pictures
from x2roto.clip import ClipInfo, FrameRange, frame_indices
from x2roto.errors import PromptError
from x2roto.job import ClipSpec, EngineSpec, ExportSpec, Job
from x2roto.planning import Shot, named_tracks, plan, shot_name, take_folder
from x2roto.prompt import Classes, Describe, Question, Text

INFO = ClipInfo(96, 64, Fraction(24), 40, 1001)
JOB = Job(ClipSpec("a.mov"), (Text("dog", "the dog"),))


@pytest.mark.parametrize(
    ("clip", "name"),
    [
        ("in/ab_010.mov", "ab_010"),
        ("in/ab_v002.%04d.exr", "ab_v002"),
        ("in/ab_v002.<frame>.exr", "ab_v002"),
        ("in/ab_plate.####.exr", "ab_plate"),
        ("in/ab_plate_@@@@.exr", "ab_plate"),
        ("in/ab_plate.1001.exr", "ab_plate"),
        ("in/ab/00001.jpg", "ab"),
        ("in/ab/%05d.jpg", "ab"),
        ("-", "stdin"),
    ],
)
def test_a_shot_is_named_after_its_clip(clip: str, name: str) -> None:
    job = replace(JOB, clip=ClipSpec(clip))
    assert shot_name(job) == name
    assert shot_name(replace(job, shot="mine")) == "mine"


@pytest.mark.parametrize(
    ("out", "folder"),
    [("out", "out"), ("out/{shot}_{frame}.png", "out"), ("out/{shot}/a.{frame}.png", "out"), ("a.####.png", ".")],
)
def test_the_record_lies_where_all_files_are_below(out: str, folder: str) -> None:
    assert take_folder(replace(JOB, out=out)) == Path(folder)


@pytest.mark.parametrize(
    "ranges",
    [(FrameRange(),), (FrameRange(3, 20, 4),), (FrameRange(30, 35), FrameRange(0, 9, 2), FrameRange(5, 6))],
)
def test_what_is_left_after_a_stop(ranges: tuple[FrameRange, ...]) -> None:
    indices = tuple(frame_indices(ranges, 40))
    shot = Shot(INFO, ranges, indices, ())
    for position in range(len(indices) + 1):
        assert tuple(frame_indices(shot.ranges_from(position), 40)) == indices[position:]


def test_mattes_are_named_in_the_order_of_the_prompts() -> None:
    prompts = (Text("boss", "the man"), Classes("c", ("Big Dog",), ("sky",)), Describe(), Question("q", "Who?"))
    found = named_tracks(replace(JOB, prompts=prompts, engine=EngineSpec(instances=2)))
    assert [(track.id, track.label, track.prompt) for track in found] == [
        (1, "boss", "the man"),
        (2, "big_dog_1", "Big Dog"),
        (3, "big_dog_2", "Big Dog"),
        (4, "sky", "sky"),
        (5, "q", "Who?"),
    ]
    with pytest.raises(PromptError, match="'boss'"):
        named_tracks(replace(JOB, prompts=(Text("boss", "the man"), Classes("c", ("boss",)))))


def test_two_formats_must_not_share_a_file(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in" / "a.%04d.png", pictures(2))
    clip = ClipSpec(str(tmp_path / "in"))
    formats = (ExportSpec("png"), ExportSpec("davis"))
    with pytest.raises(PromptError, match="would be written by format 'davis' and is format 'png''s"):
        plan(replace(JOB, clip=clip, exports=formats, out=str(tmp_path / "out" / "a.{frame}.png")))
    told = plan(replace(JOB, clip=clip, exports=formats, out=str(tmp_path / "out" / "{format}.{frame}.png")))
    assert told.file_count == 4
    assert told.numbers == (1001, 1002)
    assert not (tmp_path / "out").exists()
