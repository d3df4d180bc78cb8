"""The command line is only a way to write a `Job`: argv to the exact job, and the same job from Python."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import x2roto
from x2roto.cli.app import main
from x2roto.errors import PromptError
from x2roto.job import ClipSpec, EngineSpec, ExportSpec, Job
from x2roto.matte import Refine
from x2roto.pipeline import Summary
from x2roto.prompt import Box, Classes, Describe, MaskPrompt, Points, Question, Scribble, Text

CLIP = ClipSpec("a.mov")
MAN = (Text("the_man", "the man"),)
PLAIN = Job(CLIP, MAN)

# What is typed after `x2roto segment`, the same for `x2roto.segment`, and the job of both.
TABLE: list[tuple[str, list[str], dict[str, Any], Job]] = [
    ("defaults", ["--text", "the man"], {"text": "the man"}, PLAIN),
    (
        "every prompt",
        [
            *("--text", "boss=the man@1005", "--text", "dog", "--ask", "what=Who?", "--classes", "car, bus; sky"),
            *("--box", "1,2,30,40", "--box", "b=10%,20%,30%,40%@1002", "--point", "5,6;7,8", "--describe"),
            *("--scribble", "1,1 9,9", "--mask", "m=d/m.png"),
        ],
        {
            "text": ["boss=the man@1005", "dog"],
            "ask": ["what=Who?"],
            "classes": "car, bus; sky",
            "box": ["1,2,30,40", "b=10%,20%,30%,40%@1002"],
            "point": "5,6;7,8",
            "describe": True,
            "scribble": "1,1 9,9",
            "mask": "m=d/m.png",
        },
        Job(
            CLIP,
            (
                Text("boss", "the man", 1005),
                Text("dog", "dog"),
                Question("what", "Who?"),
                Classes("classes1", ("car", "bus"), ("sky",)),
                Box("box1", 1, 2, 30, 40),
                Box("b", 0.1, 0.2, 0.3, 0.4, 1002, True),
                Points("points1", ((5, 6), (7, 8))),
                Scribble("scribble1", ((1, 1), (9, 9))),
                MaskPrompt("m", Path("d/m.png")),
                Describe(),
            ),
        ),
    ),
    (
        "clip",
        [
            *("--text", "the man", "--frames", "1001-1050x2", "--start-frame", "1", "--on-bad-frame", "hold"),
            *("--stream", "1", "--layer", "beauty", "--rate", "24000/1001"),
        ],
        {
            "text": "the man",
            "frames": "1001-1050x2",
            "start_frame": 1,
            "on_bad_frame": "hold",
            "stream": 1,
            "layer": "beauty",
            "rate": "24000/1001",
        },
        replace(PLAIN, clip=ClipSpec("a.mov", "1001-1050x2", None, 1, "hold", 1, "beauty", None, "24000/1001")),
    ),
    (
        "source frames",
        ["--text", "the man", "--source-frames", "0-9"],
        {"text": "the man", "source_frames": "0-9"},
        replace(PLAIN, clip=ClipSpec("a.mov", source_frames="0-9")),
    ),
    (
        "matte",
        [
            *("--text", "the man", "--edge", "refined", "--grow", "-1.5", "--feather", "2", "--smooth", "0.25"),
            "--invert",
        ],
        {"text": "the man", "edge": "refined", "grow": -1.5, "feather": 2.0, "smooth": 0.25, "invert": True},
        replace(PLAIN, refine=Refine("refined", 1.0, -1.5, 2.0, 0.25, True)),
    ),
    (
        "engine",
        [
            *("--text", "the man", "-m", "small", "--device", "cuda:1", "--dtype", "float16", "--chunk", "4"),
            *("--memory", "3", "--max-vram", "7.5", "--presence", "0.4", "--seed", "9", "--instances", "2"),
        ],
        {
            "text": "the man",
            "model": "small",
            "device": "cuda:1",
            "dtype": "float16",
            "chunk": 4,
            "memory": 3,
            "max_vram": 7.5,
            "presence": 0.4,
            "seed": 9,
            "instances": 2,
        },
        replace(PLAIN, engine=EngineSpec("small", "cuda:1", "float16", 4, 3, 7.5, 9, 0.4, 2)),
    ),
    (
        "outputs",
        [
            *("--text", "the man", "-o", "out/{shot}.{frame}.{ext}", "-f", "exr:compression=dwaa,layout=single"),
            *("--format", "prores", "--shot", "ab_010", "--min-score", "0.3"),
        ],
        {
            "text": "the man",
            "output": "out/{shot}.{frame}.{ext}",
            "format": ["exr:compression=dwaa,layout=single", "prores"],
            "shot": "ab_010",
            "min_score": 0.3,
        },
        replace(
            PLAIN,
            out="out/{shot}.{frame}.{ext}",
            exports=(ExportSpec("exr", (("compression", "dwaa"), ("layout", "single"))), ExportSpec("prores")),
            shot="ab_010",
            min_score=0.3,
        ),
    ),
    (
        "a pipe is y4m",
        ["--text", "the man", "-o", "-"],
        {"text": "the man", "output": "-"},
        replace(PLAIN, out="-", exports=(ExportSpec("y4m"),)),
    ),
    (
        "a preset",
        ["--text", "the man", "-p", "review"],
        {"text": "the man", "preset": "review"},
        replace(PLAIN, exports=(ExportSpec("overlay"), ExportSpec("contact")), preset="review"),
    ),
    (
        "flags over a preset",
        ["--text", "the man", "-p", "nuke", "--edge", "soft", "-f", "tiff"],
        {"text": "the man", "preset": "nuke", "edge": "soft", "format": "tiff"},
        replace(PLAIN, exports=(ExportSpec("tiff"),), refine=Refine("soft"), preset="nuke"),
    ),
    (
        "a pipe over a preset's formats",
        ["--text", "the man", "-p", "nuke", "-o", "-"],
        {"text": "the man", "preset": "nuke", "output": "-"},
        replace(PLAIN, out="-", exports=(ExportSpec("y4m"),), refine=Refine("refined"), preset="nuke"),
    ),
]
Called = list[tuple[Job, dict[str, bool]]]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Called:
    """The jobs `run` is asked for; it does nothing."""
    calls: Called = []

    def run(job: Job, segmenter: object = None, on_frame: object = None, **how: bool) -> Summary:
        calls.append((job, how))
        return Summary(1, (), True, (), {}, (), (), resumed=1)

    monkeypatch.setattr("x2roto.pipeline.run", run)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return calls


@pytest.mark.parametrize(("argv", "job"), [(row[1], row[3]) for row in TABLE], ids=[row[0] for row in TABLE])
def test_argv_is_exactly_this_job(argv: list[str], job: Job, called: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x2roto", "segment", "a.mov", *argv])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert called == [(job, {"resume": False, "overwrite": False})]


@pytest.mark.parametrize(("options", "job"), [(row[2], row[3]) for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_same_options_in_python_are_the_same_job(options: dict[str, Any], job: Job, called: Called) -> None:
    x2roto.segment("a.mov", **options)
    assert called == [(job, {"resume": False, "overwrite": False})]


@pytest.mark.parametrize("flag", ["resume", "overwrite"])
def test_how_to_treat_a_take_that_is_there(flag: str, called: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x2roto", "segment", "a.mov", "--text", "the man", f"--{flag}"])
    with pytest.raises(SystemExit):
        main()
    x2roto.segment("a.mov", text="the man", **{flag: True})
    expected = {"resume": False, "overwrite": False, flag: True}
    assert called == [(PLAIN, expected), (PLAIN, expected)]


def test_typed_prompts_go_before_spelled_ones(called: Called) -> None:
    x2roto.segment(Path("a.mov"), prompts=[Box("b", 1, 2, 3, 4)], text="the man")
    assert called[0][0].prompts == (Box("b", 1, 2, 3, 4), *MAN)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sharpness": 3}, "unknown option 'sharpness'"),
        ({"chunk": "many"}, "chunk is 'many': use a whole number"),
        ({"chunk": True}, "chunk is True: use a whole number"),
        ({"grow": float("inf")}, "grow is inf: use a number"),
        ({"edge": "fuzzy"}, "edge is 'fuzzy': use auto, soft, hard, refined"),
        ({"output": "-", "format": "png"}, "a pipe takes one format"),
        ({"format": []}, None),
    ],
)
def test_options_are_checked_in_python_too(options: dict[str, Any], message: str | None, called: Called) -> None:
    if message is None:
        x2roto.segment("a.mov", text="the man", **options)
        assert called == [(PLAIN, {"resume": False, "overwrite": False})]
    else:
        with pytest.raises(PromptError, match=message):
            x2roto.segment("a.mov", text="the man", **options)


# ---- the job itself ---------------------------------------------------------------------------------------


def test_the_digest_is_of_what_makes_the_frames() -> None:
    same = [PLAIN, replace(PLAIN, out="elsewhere"), replace(PLAIN, preset="nuke")]
    others = [
        replace(PLAIN, clip=ClipSpec("b.mov")),
        replace(PLAIN, prompts=(Text("the_man", "the man", 1002),)),
        replace(PLAIN, prompts=(Question("the_man", "the man"),)),
        replace(PLAIN, refine=Refine(invert=True)),
        replace(PLAIN, engine=EngineSpec(seed=1)),
        replace(PLAIN, exports=(ExportSpec("exr"),)),
        replace(PLAIN, shot="ab"),
    ]
    assert len({job.digest() for job in same}) == 1
    assert len({job.digest() for job in (PLAIN, *others)}) == 1 + len(others)


def test_a_job_is_json() -> None:
    job = TABLE[1][3]
    said = json.loads(json.dumps(job.to_dict()))
    assert [prompt["kind"] for prompt in said["prompts"]][:4] == ["text", "text", "question", "classes"]
    assert said["clip"]["path"] == "a.mov"
    assert said["prompts"][8]["mask"] == "d/m.png"


@pytest.mark.parametrize(
    ("text", "rate"),
    [("24", Fraction(24)), ("23.976", Fraction(2997, 125)), ("30000/1001", Fraction(30000, 1001)), (None, None)],
)
def test_rates_are_exact(text: str | None, rate: Fraction | None) -> None:
    assert ClipSpec("a", rate=text).exact_rate() == rate


def test_an_export_as_written() -> None:
    assert ExportSpec.parse("exr: compression = dwaa , layout=files") == ExportSpec(
        "exr", (("compression", "dwaa"), ("layout", "files"))
    )
    for wrong in ("", ":a=1", "exr:a", "exr:=1", "exr:a=1,,b=2"):
        with pytest.raises(PromptError, match="is not understood"):
            ExportSpec.parse(wrong)


def test_public_names_are_there_and_load_nothing_heavy() -> None:
    code = (
        "import sys, x2roto, x2roto.cli.app\n"
        "heavy = {'torch', 'transformers', 'av', 'numpy', 'scipy', 'PIL', 'OpenEXR', 'rich.progress'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
        "print([name for name in x2roto.__all__ if getattr(x2roto, name, None) is None])\n"
        "assert set(dir(x2roto)) == set(x2roto.__all__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        x2roto.nonesuch  # noqa: B018
