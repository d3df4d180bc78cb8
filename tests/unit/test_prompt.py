"""Prompts: their spelling, their names, and the masks drawn from them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from x2roto.errors import InputError, PromptError
from x2roto.prompt import (
    Box,
    Classes,
    Describe,
    Kind,
    MaskPrompt,
    Points,
    Prompt,
    Question,
    Scribble,
    Text,
    check_prompts,
    parse_generic,
    parse_prompt,
    region_mask,
    slug,
)

SPELLINGS: list[tuple[Kind, str, Prompt]] = [
    ("text", "the right man", Text("the_right_man", "the right man")),
    ("text", " man = the right man @1001 ", Text("man", "the right man", 1001)),
    ("text", "left-hand man=him@-5", Text("left-hand man", "him", -5)),
    ("text", "the mail@home sign", Text("the_mail_home_sign", "the mail@home sign")),
    ("text", "sign=the e=mc2 poster", Text("sign", "the e=mc2 poster")),
    ("text", "the 'x=y' poster", Text("the_x_y_poster", "the 'x=y' poster")),
    ("question", "What is hot?@12", Question("what_is_hot_12", "What is hot?@12")),
    ("classes", "ins: man, taxi; sem: road", Classes("classes1", ("man", "taxi"), ("road",))),
    ("classes", "all=sem: sky", Classes("all", (), ("sky",))),
    ("classes", "man, taxi; road", Classes("classes1", ("man", "taxi"), ("road",))),
    ("classes", "; sky", Classes("classes1", (), ("sky",))),
    ("box", "10,20,30,40", Box("box1", 10, 20, 30, 40)),
    ("box", "car=10%, 20%,30%, 40.5%@7", Box("car", 0.1, 0.2, 0.3, 0.405, 7, relative=True)),
    ("points", "10,20", Points("points1", ((10, 20),))),
    ("points", "10,20;30, 40 50,60@3", Points("points1", ((10, 20), (30, 40), (50, 60)), 3)),
    ("points", "50%,50%", Points("points1", ((0.5, 0.5),), relative=True)),
    ("scribble", "hat=1,2 3,4", Scribble("hat", ((1, 2), (3, 4)))),
    ("mask", "roto/Key Mask.png@1010", MaskPrompt("key_mask", Path("roto/Key Mask.png"), 1010)),
    ("mask", "hero=a=b.png", MaskPrompt("hero", Path("a=b.png"))),
]


@pytest.mark.parametrize(("kind", "spelling", "prompt"), SPELLINGS)
def test_spelling(kind: Kind, spelling: str, prompt: Prompt) -> None:
    assert parse_prompt(kind, spelling) == prompt


def test_default_names_are_numbered() -> None:
    assert [parse_prompt("box", "1,2,3,4", number).name for number in (1, 2)] == ["box1", "box2"]


@pytest.mark.parametrize(
    ("kind", "spelling", "message"),
    [
        ("text", "", "empty text prompt"),
        ("text", "man=", "empty text prompt"),
        ("box", "1,2,3", "write x0,y0,x1,y1"),
        ("box", "1,2,3,4,5", "write x0,y0,x1,y1"),
        ("box", "1%,2,3,4", "% on every number"),
        ("box", "1,2,3,wide", "'wide' is not a number"),
        ("box", "1,2,3,nan", "'nan' is not a number"),
        ("points", "1,2;3", "x,y pairs"),
        ("points", "1,2;3%,4%", "% on every number"),
        ("scribble", "1 2", "x,y pairs"),
        ("classes", "; ,", "cannot read the classes"),
        ("classes", "man; sky; road", "cannot read the classes"),
        ("classes", "ins: ; sem:", "no class named"),
    ],
)
def test_bad_spelling_is_one_clear_line(kind: Kind, spelling: str, message: str) -> None:
    with pytest.raises(PromptError, match=message) as caught:
        parse_prompt(kind, spelling)
    assert "\n" not in str(caught.value)


def test_class_grammar_keeps_order_and_takes_the_first_of_each() -> None:
    assert parse_generic("sem: road; ins: b, a,; ins: c") == (("b", "a"), ("road",))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("The Right Man!", "the_right_man"),
        ("große Tür", "grosse_tur"),
        ("2 men", "object_2_men"),
        ("右边的男人", "object"),
        ("a" * 40, "a" * 31),
        ("the man who is ironing clothes behind a taxi", "the_man_who_is_ironing_clothes"),
    ],
)
def test_slug(text: str, name: str) -> None:
    assert slug(text) == name


def test_names_that_would_share_a_file_are_refused() -> None:
    check_prompts([Text("man", "a"), Text("woman", "b"), Describe()])
    with pytest.raises(PromptError, match="'the_man'"):
        check_prompts([Text("the man", "a"), Box("The-Man", 0, 0, 1, 1)])
    with pytest.raises(PromptError, match="'car'"):
        check_prompts([Classes("all", ("car", "Car"), ("road",))])
    with pytest.raises(PromptError, match="nothing to cut"):
        check_prompts([])


def test_box_is_half_open_and_filled() -> None:
    mask = region_mask(Box("b", 2, 1, 5, 4), width=8, height=6)
    assert mask.shape == (6, 8)
    assert mask[1:4, 2:5].all()
    assert mask.sum() == 9


def test_relative_box_covers_the_same_share() -> None:
    whole = region_mask(Box("b", 0, 0, 1, 1, relative=True), width=8, height=6)
    assert whole.all()
    quarter = region_mask(Box("b", 0.5, 0.5, 1, 1, relative=True), width=8, height=6)
    assert np.array_equal(quarter, region_mask(Box("b", 4, 3, 8, 6), width=8, height=6))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (Box("b", -1, 0, 4, 4), "leaves the 8x6 frame"),
        (Box("b", 0, 0, 9, 4), "leaves the 8x6 frame"),
        (Box("b", 0, 0, 1.2, 1, relative=True), "leaves the 8x6 frame"),
        (Box("b", 4, 0, 4, 4), "has no area"),
        (Box("b", 0, 5, 4, 4), "has no area"),
        (Box("b", 0.6, 0, 1.4, 4), "covers no pixel"),
    ],
)
def test_bad_boxes(box: Box, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        region_mask(box, width=8, height=6)


@pytest.mark.parametrize(("lines", "radius"), [(600, 10), (1080, 18), (2160, 36), (120, 3)])
def test_a_point_is_a_disc_that_grows_with_the_frame(lines: int, radius: float) -> None:
    width = lines * 16 // 9
    mask = region_mask(Points("p", ((width // 2, lines // 2),)), width, lines)
    rows, columns = np.indices(mask.shape)
    wanted = (columns - width // 2) ** 2 + (rows - lines // 2) ** 2 <= radius**2
    assert np.array_equal(mask, wanted)


def test_points_are_cut_at_the_frame_and_merge() -> None:
    corners = Points("p", ((0, 0), (1, 1)), relative=True)
    mask = region_mask(corners, width=64, height=48)
    assert mask[0, 0]
    assert mask[-1, -1]
    single = region_mask(Points("p", ((0, 0),)), width=64, height=48)
    assert mask.sum() == 2 * single.sum()


def test_a_stroke_is_every_pixel_near_its_line() -> None:
    stroke = Scribble("s", ((20, 30), (120, 90), (150, 20)))
    mask = region_mask(stroke, width=200, height=120)
    rows, columns = np.indices(mask.shape)
    samples = [
        np.linspace(start, end, 2000)
        for start, end in (
            (np.array([20, 30]), np.array([120, 90])),
            (np.array([120, 90]), np.array([150, 20])),
        )
    ]
    nearest = np.full(mask.shape, np.inf)
    for x, y in np.concatenate(samples):
        nearest = np.minimum(nearest, np.hypot(columns - x, rows - y))
    clear = np.abs(nearest - 3) > 0.01  # the sampled line is only nearly the line
    assert np.array_equal(mask[clear], (nearest <= 3)[clear])


@pytest.mark.parametrize("point", [(-1, 5), (8, 5), (5, 6), (5, -0.5)])
def test_points_outside_are_refused(point: tuple[float, float]) -> None:
    with pytest.raises(PromptError, match="outside the 8x6 frame"):
        region_mask(Points("p", (point,)), width=8, height=6)


def test_a_single_point_is_no_stroke_and_none_is_no_prompt() -> None:
    with pytest.raises(PromptError, match="at least two points"):
        region_mask(Scribble("s", ((1, 1),)), width=8, height=6)
    with pytest.raises(PromptError, match="covers no pixel"):
        region_mask(Points("p", ()), width=8, height=6)


INSIDE = np.zeros((6, 8), dtype=bool)
INSIDE[2:4, 1:5] = True


@pytest.mark.parametrize(
    "values",
    [
        INSIDE,
        np.where(INSIDE, 128, 127).astype(np.uint8),
        np.where(INSIDE, 32768, 32767).astype(np.uint16),
        np.where(INSIDE, 0.51, 0.5).astype(np.float32),
    ],
)
def test_mask_arrays_are_cut_at_half(values: np.ndarray) -> None:
    assert np.array_equal(region_mask(MaskPrompt("m", values), width=8, height=6), INSIDE)


def test_mask_errors() -> None:
    with pytest.raises(PromptError, match="is 8x6 but the frame is 6x8"):
        region_mask(MaskPrompt("m", INSIDE), width=6, height=8)
    with pytest.raises(PromptError, match="covers no pixel"):
        region_mask(MaskPrompt("m", INSIDE.astype(np.uint8)), width=8, height=6)
    with pytest.raises(PromptError, match="int64"):
        region_mask(MaskPrompt("m", INSIDE.astype(np.int64)), width=8, height=6)


def layers(colour: tuple[int, int, int]) -> np.ndarray:
    drawn = np.zeros((6, 8, 4), dtype=np.uint8)
    drawn[INSIDE] = (*colour, 255)
    return drawn


def save(path: Path, image: Image.Image) -> Path:
    image.save(path)
    return path


@pytest.mark.parametrize("kind", ["grey", "bilevel", "deep", "rgb", "layer", "white_layer", "palette"])
def test_mask_files(kind: str, tmp_path: Path) -> None:
    white = np.full((6, 8, 4), 255, dtype=np.uint8)
    white[..., 3] = np.where(INSIDE, 255, 0)
    grey = Image.fromarray(np.where(INSIDE, 255, 0).astype(np.uint8))
    palette = Image.fromarray(INSIDE.astype(np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 128, 0, 0])
    pictures = {
        "grey": grey,
        "bilevel": grey.convert("1"),
        "deep": Image.fromarray(np.where(INSIDE, 65535, 300).astype(np.uint16)),
        "rgb": grey.convert("RGB"),
        "layer": Image.fromarray(layers((255, 0, 0))),
        "white_layer": Image.fromarray(white),
        "palette": palette,
    }
    path = save(tmp_path / "mask.png", pictures[kind])
    assert np.array_equal(region_mask(MaskPrompt("m", path), width=8, height=6), INSIDE)


def test_a_mask_file_that_cannot_be_read(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    for path in (broken, tmp_path / "missing.png"):
        with pytest.raises(InputError, match=r"cannot read the mask") as caught:
            region_mask(MaskPrompt("m", path), width=8, height=6)
        assert caught.value.path == path


def test_masks_are_equal_by_value() -> None:
    assert MaskPrompt("m", INSIDE) == MaskPrompt("m", INSIDE.copy())
    assert hash(MaskPrompt("m", INSIDE)) == hash(MaskPrompt("m", INSIDE.copy()))
    assert MaskPrompt("m", INSIDE) != MaskPrompt("m", ~INSIDE)
    assert MaskPrompt("m", INSIDE) != MaskPrompt("m", Path("m.png"))
    assert MaskPrompt("m", Path("m.png")) != MaskPrompt("m", Path("n.png"))


def test_importing_prompts_is_light() -> None:
    code = "import sys, x2roto.prompt; print([m for m in ('numpy', 'torch', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
