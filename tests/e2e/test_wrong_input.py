"""Whatever is wrong with a command: one line, the documented exit code, nothing on stdout, nothing written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from PIL import Image

from tests.e2e.conftest import Run
from tests.media import HEIGHT, WIDTH, pictures, write_pictures, write_y4m

USAGE, INPUT, OUTPUT, MODEL = 2, 3, 7, 8
BOX = ("--box", "4,8,30,30")


@dataclass(frozen=True, slots=True)
class Case:
    """A command line (`{name}` is put in from `files`), how it must end, and part of what it must say."""

    argv: tuple[str, ...]
    code: int
    message: str

    @property
    def id(self) -> str:
        return " ".join(self.argv)


def segment(*argv: str, code: int = USAGE, says: str, clip: str = "{clip}") -> Case:
    return Case(("segment", clip, *argv), code, says)


def cut(*argv: str, code: int = USAGE, says: str, clip: str = "{clip}") -> Case:
    return segment(*BOX, *argv, code=code, says=says, clip=clip)


CASES = [
    # What typer itself refuses.
    Case(("segment",), USAGE, "Missing argument 'clip'"),
    Case(("sgment",), USAGE, "sgment"),
    cut("--frobnicate", says="--frobnicate"),
    cut("--frames", says="--frames"),
    cut("--chunk", "many", says="--chunk"),
    cut("--edge", "fuzzy", says="'fuzzy'"),
    cut("--dtype", "int8", says="'int8'"),
    cut("--progress", "loud", says="'loud'"),
    cut("--on-bad-frame", "guess", says="'guess'"),
    # Prompts.
    segment(says="nothing to cut"),
    segment("--text", "", says="empty text prompt"),
    segment("--ask", " ", says="empty question prompt"),
    segment("--classes", " , ; ", says="cannot read the classes"),
    segment("--box", "10,10,5,20", says="has no area"),
    segment("--box", "1,2,3", says="cannot read '1,2,3'"),
    segment("--box", "1,2,3,nan", says="'nan' is not a number"),
    segment("--box", "10%,10,50,50", says="with % on every number"),
    segment("--box", "0,0,97,64", says="leaves the 96x64 frame"),
    segment("--box", "-1,0,20,20", says="leaves the 96x64 frame"),
    segment("--box", "0%,0%,120%,100%", says="leaves the 96x64 frame"),
    segment("--box", "0.1,0.1,0.2,0.2", says="covers no pixel"),
    segment("--box", "4,8,30,30@900", says="starts on frame 900, which is not among the frames to cut"),
    segment("--box", "4,8,30,30@1011", "--frames", "1001-1005", says="starts on frame 1011"),
    segment("--text", "the man@1013", says="starts on frame 1013"),
    segment("--box", "4,8,30,30@first", says="'30@first' is not a number"),
    segment("--point", "96,10", says="outside the 96x64 frame"),
    segment("--point", "10", says="cannot read '10'"),
    segment("--scribble", "5,5", says="at least two points"),
    segment("--mask", "{nowhere}", code=INPUT, says="cannot read the mask"),
    segment("--mask", "{text}", code=INPUT, says="cannot read the mask"),
    segment("--mask", "{empty_mask}", says="covers no pixel"),
    segment("--mask", "{small_mask}", says="is 32x32 but the frame is 96x64"),
    segment("--box", "a=4,8,30,30", "--box", "a=9,9,20,20", says="two prompts would both be called 'a'"),
    segment("--text", "the man", "--ask", "the man=who?", says="both be called 'the_man'"),
    segment("--text", "dog", "--classes", "dog, cat", says="'dog'"),
    # Frames.
    cut("--frames", "abc", says="frame range 'abc'"),
    cut("--frames", "1005-1001", says="runs backwards"),
    cut("--frames", "1001-1010x0", says="step 0"),
    cut("--frames", "1001,,1003", says="is not understood"),
    cut("--frames", "2000-2010", says="has no frame of the clip, which runs 1001-1012"),
    cut("--source-frames", "40-50", says="has no frame of the clip, which runs 0-11"),
    cut("--frames", "1001", "--source-frames", "0", says="contradict each other"),
    # Clips.
    cut(clip="{nowhere}", code=INPUT, says="no such file"),
    cut(clip="{text}", code=INPUT, says="text.mp4"),
    cut(clip="{zero}", code=INPUT, says="is empty"),
    cut(clip="{empty_folder}", code=INPUT, says="empty"),
    cut(clip="{pattern}", code=INPUT, says="none.####.png"),
    cut(clip="{gap}", code=INPUT, says="1004"),
    cut(clip="{mixed}", code=INPUT, says="48x32"),
    cut("--stream", "7", code=INPUT, says="stream"),
    cut("--stream", "-1", says="--stream is -1"),
    cut("--layer", "beauty", code=INPUT, says="layer 'beauty'"),
    cut("--rate", "fast", says="--rate 'fast'"),
    cut("--rate", "24/0", says="--rate '24/0'"),
    cut("--size", "96x64", says="standard input"),
    cut("--pix-fmt", "rgb24", says="--size and --pix-fmt together"),
    cut("--size", "96", "--pix-fmt", "rgb24", "--rate", "24", clip="-", says="--size '96'"),
    cut("--size", "96x64", "--pix-fmt", "rgb24", clip="-", says="need --rate"),
    cut("--size", "96x64", "--pix-fmt", "mauve", "--rate", "24", clip="-", code=INPUT, says="'mauve'"),
    cut(clip="-", code=INPUT, says="cannot be read"),
    # Numbers out of range.
    cut("--chunk", "0", says="--chunk is 0"),
    cut("--memory", "0", says="--memory is 0"),
    cut("--max-vram", "-2", says="--max-vram is -2"),
    cut("--presence", "1.5", says="--presence is 1.5"),
    cut("--instances", "-1", says="--instances is -1"),
    cut("--seed", "-1", says="--seed is -1"),
    cut("--min-score", "2", says="--min-score is 2"),
    cut("--smooth", "1.5", says="smooth is 1.5"),
    cut("--feather", "-3", says="feather is -3"),
    cut("--grow", "nan", says="grow is nan"),
    cut("--grow", "1e9", says="the plate is only 96x64"),
    # Outputs.
    cut("-f", "gif", says="unknown format 'gif'"),
    cut("-f", "exr:compression=zap", says="exr compression is 'zap'"),
    cut("-f", "exr:squeeze=1", says="has no option 'squeeze'"),
    cut("-f", "exr:compression", says="is not understood"),
    cut("-f", "png", "-f", "png", says="asked for twice"),
    cut("-o", "-", "-f", "png", says="a pipe takes one format"),
    cut("-o", "-", "-f", "y4m", "-f", "raw", says="a pipe takes one format"),
    cut("-f", "y4m", says="goes to a pipe"),
    cut("-f", "y4m:object=cat", "-o", "-", says="no object is called 'cat'"),
    cut("-o", "{out}/{{shot}}.{{take}}.png", says="unknown field"),
    cut("-o", "{out}/{{shot.png", says="is broken"),
    cut("-o", "{out}/one.png", says="add {frame}"),
    cut("--box", "b=1,1,9,9", "-o", "{out}/{{frame}}.png", says="add {object}"),
    cut("-o", "{out}/a.{{frame}}.png", "-f", "exr", says="does not end in .exr"),
    cut("-o", "{shot}/shot.{{frame}}.png", clip="{shot}", says="the clip itself"),
    cut("-o", "{text}/below", code=OUTPUT, says="is a file, not a folder"),
    cut("-o", "{record}", code=OUTPUT, says="is not a record of a take"),
    cut("-o", "{strange}", code=OUTPUT, says="is there already and of no take"),
    cut("--resume", "-o", "{strange}", code=OUTPUT, says="is there already and of no take"),
    cut("--resume", "--overwrite", says="contradict each other"),
    cut("--resume", "-o", "-", says="--resume cannot go on with a pipe"),
    cut("--log-json", "{text}/log", code=OUTPUT, says="log"),
    cut("-o", "-", "--log-json", "-", says="both write to standard output"),
    # Presets.
    cut("--preset", "vhs", says="no preset is called 'vhs': use one of after-effects"),
    cut("--preset", "{nowhere}/a.toml", says="cannot be read"),
    cut("--preset", "{broken_preset}", says="cannot be read"),
    cut("--preset", "{odd_preset}", says="unknown key 'sharpness'"),
    Case(("presets", "show", "vhs"), USAGE, "no preset is called 'vhs'"),
    # Devices and models.
    cut("--device", "gpu", says="--device 'gpu' is not understood"),
    cut("--device", "cpu:1", says="--device 'cpu:1' is not understood"),
    cut("--device", "cuda:99", code=MODEL, says="there is no device 'cuda:99'"),
    cut("--model", "nonesuch", code=MODEL, says="no model 'nonesuch'"),
    cut("--model", "{empty_folder}", code=MODEL, says="is no model folder"),
    cut("--model", "{damaged_model}", code=MODEL, says="model.safetensors"),
    # The other verbs.
    Case(("info", "{nowhere}"), INPUT, "no such file"),
    Case(("chat", "{clip}", " "), USAGE, "empty text"),
    Case(("chat", "{nowhere}", "who?"), INPUT, "no such file"),
    Case(("preview", "{clip}"), USAGE, "nothing to cut"),
    Case(("preview", "{clip}", *BOX, "--frame", "2000"), USAGE, "which runs 1001-1012"),
    Case(("preview", "{clip}", *BOX, "-o", "still.jpg"), USAGE, "end it in .png"),
    Case(("preview", "{clip}", "--box", "4,8,30,30@2000"), USAGE, "starts on frame 2000"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, media: Path, model: Path) -> dict[str, Path]:
    """What the command lines name."""
    folder = tmp_path_factory.mktemp("files")
    made: dict[str, Path] = {"clip": media / "clip.mp4", "shot": media / "shot", "nowhere": folder / "nowhere"}
    made["out"] = folder / "out"
    for name, text in {
        "text": "not a movie",
        "zero": "",
        "broken_preset": "[refine",
        "odd_preset": "[refine]\nsharpness = 3\n",
    }.items():
        made[name] = folder / (f"{name}.toml" if "preset" in name else f"{name}.mp4")
        made[name].write_text(text)
    made["empty_folder"] = folder / "empty"
    made["empty_folder"].mkdir()
    made["pattern"] = folder / "none.####.png"
    for name, size in {"empty_mask": (WIDTH, HEIGHT), "small_mask": (32, 32)}.items():
        made[name] = folder / f"{name}.png"
        Image.new("L", size).save(made[name])
    made["gap"], made["mixed"] = folder / "gap", folder / "mixed"
    write_pictures(made["gap"] / "a.%04d.png", pictures(6))
    (made["gap"] / "a.1004.png").unlink()
    write_pictures(made["mixed"] / "a.%04d.png", [*pictures(3), np.zeros((32, 48, 3), np.uint8)])
    made["record"], made["strange"] = folder / "record", folder / "strange"
    made["record"].mkdir()
    (made["record"] / "x2roto.json").write_text("[]")
    made["strange"].mkdir()
    (made["strange"] / "clip_box1.1001.png").write_text("somebody's work")
    made["damaged_model"] = folder / "damaged"
    shutil.copytree(model, made["damaged_model"])
    (made["damaged_model"] / "model.safetensors").write_bytes(b"\0" * 100)
    return made


def snapshot(*folders: Path) -> set[tuple[Path, int, int]]:
    """Every file below, with size and time."""
    found = (path for folder in folders for path in folder.rglob("*"))
    return {(path, path.stat().st_size, path.stat().st_mtime_ns) for path in found}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_wrong_input_is_one_line(case: Case, run: Run, files: dict[str, Path], tmp_path: Path) -> None:
    before = snapshot(tmp_path, *{path.parent for path in files.values()})
    outcome = run(*(part.format_map(files) for part in case.argv))
    outcome.assert_refused(case.code, case.message)
    assert snapshot(tmp_path, *{path.parent for path in files.values()}) == before


def test_the_table_is_long_enough() -> None:
    assert len({case.id for case in CASES}) == len(CASES) >= 45


@contextmanager
def as_anybody() -> Iterator[None]:
    """Without root's right to everything."""
    before = os.geteuid()
    os.seteuid(65534 if before == 0 else before)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.fixture
def shared(media: Path) -> Iterator[Path]:
    """A folder open to everybody, with the clip in it."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        shutil.copy(media / "clip.mp4", folder)
        yield Path(folder)


def test_a_clip_that_must_not_be_read(run: Run, shared: Path) -> None:
    assert run("info", shared / "clip.mp4").code == 0
    (shared / "clip.mp4").chmod(0)
    with as_anybody():
        outcome = run("info", shared / "clip.mp4")
    outcome.assert_refused(INPUT, "permission")


def test_a_folder_that_must_not_be_written(run: Run, shared: Path) -> None:
    shared.chmod(0o555)
    assert run("segment", shared / "clip.mp4", *BOX, "--dry-run").code == 0
    with as_anybody():
        outcome = run("segment", shared / "clip.mp4", *BOX, "-o", shared / "below" / "out")
    outcome.assert_refused(OUTPUT, "no permission to write there")
    assert [path.name for path in shared.iterdir()] == ["clip.mp4"]


def test_a_take_that_is_there(cut: Run, tmp_path: Path) -> None:
    assert cut(*BOX, "-o", "out", "--frames", "1001-1002").code == 0
    before = snapshot(tmp_path)
    cut(*BOX, "-o", "out", "--frames", "1001-1002").assert_refused(OUTPUT, "--resume to go on or --overwrite")
    cut(*BOX, "-o", "out", "--frames", "1001-1003").assert_refused(OUTPUT, "--overwrite or another -o")
    cut(*BOX, "-o", "out", "--frames", "1001-1003", "--resume").assert_refused(OUTPUT, "a take of another job")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "standard input"),
        (lambda data: b"YUV4MPEG9" + data[9:], "cannot be read"),
        (lambda data: data[:40], "standard input"),
    ],
    ids=["half a stream", "another magic", "a header alone"],
)
def test_a_broken_pipe_of_frames(
    damage: Callable[[bytes], bytes], message: str, cut: Run, tmp_path: Path, media: Path
) -> None:
    stream = write_y4m(tmp_path / "clip.y4m", pictures(1)).read_bytes()
    (tmp_path / "clip.y4m").unlink()
    cut(*BOX, "-o", "out", clip="-", stdin=damage(stream)).assert_refused(INPUT, message)
    assert not list(tmp_path.iterdir())


def test_prompts_on_later_frames_of_a_pipe(cut: Run, tmp_path: Path) -> None:
    stream = write_y4m(tmp_path / "clip.y4m", pictures(4)).read_bytes()
    outcome = cut("--box", "4,8,30,30@1003", "-o", "out", clip="-", stdin=stream)
    outcome.assert_refused(USAGE, "a pipe is read once, forwards")


def test_our_own_mistakes_end_in_one_line(run: Run, media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("x2roto.planning.open_clip", broken)
    run("info", media / "clip.mp4").assert_refused(1, "unexpected KeyError: 'surprise': please report this")
    monkeypatch.setenv("X2ROTO_DEBUG", "1")
    told = run("info", media / "clip.mp4")
    assert told.code == 1
    assert "Traceback" in told.err
    assert 'raise KeyError("surprise")' in told.err


def test_a_machine_without_memory(run: Run, media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("x2roto.planning.open_clip", broken)
    run("info", media / "clip.mp4").assert_refused(5, "out of memory")
