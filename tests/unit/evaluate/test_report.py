"""Reports: the page asks nothing of the network and trusts no text, the JSON says the same, both come whole."""

from __future__ import annotations

import io
import json
import re
from base64 import b64decode
from html.parser import HTMLParser
from math import inf, nan
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from x2roto.errors import OutputError
from x2roto.evaluate.page import as_html
from x2roto.evaluate.report import (
    PICTURE_COUNT,
    PICTURE_WIDTH,
    PREDICTION_COLOUR,
    TRUTH_COLOUR,
    Column,
    Picture,
    Report,
    Series,
    Table,
    as_json,
    contour_picture,
    scores_table,
    write_report,
)

NASTY = "<script>alert(\"x\")</script> & 'co'"
VOID = {"meta", "img", "line", "rect", "path"}


def report() -> Report:
    table = Table(
        f"By clip {NASTY}",
        (Column("clip"), Column(f"J {NASTY}", 3, "higher"), Column("frames")),
        ((f"boat {NASTY}", 0.5, 3), ("surf", nan, 4), ("all", 0.25, 7)),
        note=NASTY,
        total=True,
    )
    picture = Picture(NASTY, np.full((720, 1280, 3), (200, 30, 30), np.uint8))
    series = Series(NASTY, (1001, 1002, 1004), {NASTY: (0.5, nan, 0.75)}, (0, 1))
    return Report(NASTY, {NASTY: NASTY}, (table,), (series,), (picture,), (NASTY,))


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on a tag that is not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def curves(series: Series) -> list[str]:
    page = Page(as_html(Report("", {}, series=(series,))))
    return [attrs["d"] or "" for attrs in page.all("path")]


def test_text_from_outside_is_text() -> None:
    page = Page(as_html(report()))
    assert len(page.all("script")) == 1
    assert page.text.count(NASTY) >= 9
    assert [attrs["alt"] for attrs in page.all("img")] == [NASTY]


def test_the_page_asks_nothing_of_the_network() -> None:
    html = as_html(report())
    page = Page(html)
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert "url(" not in html
    assert [attrs for tag, attrs in page.tags if "href" in attrs or tag in ("link", "iframe", "object")] == []
    assert all((attrs.get("src") or "data:").startswith("data:") for _, attrs in page.tags)
    policy = [attrs["content"] for attrs in page.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0] is not None
    assert policy[0].startswith("default-src 'none'")


def test_equal_reports_are_equal_pages() -> None:
    assert as_html(report()) == as_html(report())


def test_an_empty_report_is_a_page() -> None:
    assert "nothing here" in Page(as_html(Report("nothing here", {}))).text


def test_cells_sort_by_their_value_and_the_total_stays_last() -> None:
    html = as_html(report())
    assert '<td class="number" data-value="0.5">0.500</td>' in html
    assert '<td class="number none">–</td>' in html
    body, foot = html.split("<tbody>")[1].split("</tbody>")
    assert "boat" in body
    assert "<td>all</td>" not in body
    assert "<td>all</td>" in foot.split("</tfoot>")[0]


def test_differences_to_the_paper_have_signs() -> None:
    table = scores_table("Scores", {"J": 75.93, "F": 82.61, "T": 1.0}, {"J": 75.2, "F": 82.8})
    assert [column.title for column in table.columns] == ["measure", "ours", "paper", "difference"]
    assert table.rows[0] == ("J", 75.93, 75.2, pytest.approx(0.73))
    assert table.rows[2] == ("T", 1.0, None, None)
    html = as_html(Report("", {}, (table,)))
    assert ">+0.7</td>" in html
    assert ">−0.2</td>" in html
    assert len(scores_table("Scores", {"J": 1.0}).columns) == 2


def test_a_measure_only_the_paper_has_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no score for F"):
        scores_table("Scores", {"J": 1.0}, {"F": 1.0})


def test_rows_and_lines_must_fit() -> None:
    with pytest.raises(ValueError, match="2 columns and a row of 1"):
        Table("t", (Column("a"), Column("b")), (("x",),))
    with pytest.raises(ValueError, match="2 frames"):
        Series("s", (1, 2), {"J": (0.5,)})


def test_a_curve_has_gaps_where_there_are_no_numbers() -> None:
    (path,) = curves(Series("s", (1, 2, 3, 4, 5), {"J": (0.1, 0.2, nan, 0.3, 0.4)}))
    assert path.count("M") == 2
    assert curves(Series("s", (1, 2), {"J": (nan, nan)})) == []


def test_a_curve_runs_over_the_span() -> None:
    (path,) = curves(Series("s", (1, 2, 3), {"J": (0.0, 0.5, 1.0)}, (0, 1)))
    points = [tuple(map(float, point.split())) for point in path[1:].split("L")]
    (left, bottom), middle, (right, top) = points
    assert left < right
    assert top < bottom
    assert middle == (pytest.approx((left + right) / 2), pytest.approx((top + bottom) / 2))


def test_lone_frames_and_flat_lines_are_drawn() -> None:
    assert curves(Series("s", (7,), {"J": (0.5,)}))[0].count("L") == 1
    assert curves(Series("s", (7, 8), {"J": (0.0, 0.0)}))
    assert curves(Series("s", (7, 8), {"J": (-3.0, -3.0)}))


def test_a_long_clip_keeps_its_worst_frame_in_a_bounded_curve() -> None:
    values = np.ones(20_000)
    values[12_345] = 0
    (path,) = curves(Series("s", tuple(range(20_000)), {"J": values}, (0, 1)))
    points = [tuple(map(float, point.split())) for point in path[1:].split("L")]
    assert len(points) < 1000
    lows = [x for x, y in points if y == max(y for _, y in points)]
    assert len(lows) == 1
    html = as_html(Report("", {}, series=(Series("s", tuple(range(20_000)), {"J": values}),)))
    assert len(html) < 100_000


def test_pictures_are_small_and_few() -> None:
    pictures = tuple(Picture(str(n), np.full((60, 1000, 3), n, np.uint8)) for n in range(PICTURE_COUNT + 5))
    sources = [attrs["src"] or "" for attrs in Page(as_html(Report("", {}, pictures=pictures))).all("img")]
    assert len(sources) == PICTURE_COUNT
    with Image.open(io.BytesIO(b64decode(sources[7].partition("base64,")[2]))) as image:
        assert image.size == (PICTURE_WIDTH, round(60 * PICTURE_WIDTH / 1000))
        assert np.abs(np.asarray(image).astype(int) - 7).max() <= 2


def test_contours_are_drawn_inside_the_mattes_truth_on_top() -> None:
    plate = np.full((40, 60, 3), 90, np.uint8)
    truth, prediction = np.zeros((40, 60), bool), np.zeros((40, 60), np.float32)
    truth[10:30, 10:30] = True
    prediction[10:30, 20:50] = 0.7
    rgb = contour_picture("c", plate, truth, prediction).rgb
    assert tuple(rgb[20, 10]) == TRUTH_COLOUR
    assert tuple(rgb[20, 49]) == tuple(rgb[20, 48]) == PREDICTION_COLOUR
    assert tuple(rgb[20, 29]) == TRUTH_COLOUR
    assert tuple(rgb[20, 15]) == tuple(rgb[20, 40]) == tuple(rgb[5, 5]) == (90, 90, 90)
    assert (plate == 90).all()


def test_json_says_the_same() -> None:
    plain = json.loads(json.dumps(as_json(report()), allow_nan=False))
    assert (plain["schema"], plain["version"], plain["title"]) == ("x2roto.report", 1, NASTY)
    assert plain["facts"] == {NASTY: NASTY}
    assert plain["tables"][0]["rows"] == [[f"boat {NASTY}", 0.5, 3], ["surf", None, 4], ["all", 0.25, 7]]
    assert plain["tables"][0]["columns"][1]["better"] == "higher"
    assert plain["series"][0]["lines"] == {NASTY: [0.5, None, 0.75]}
    assert plain["pictures"] == [{"caption": NASTY, "width": 1280, "height": 720}]
    assert as_json(Report("", {}, (Table("", (Column("a"),), ((inf,),)),)))["tables"][0]["rows"] == [[None]]


def test_both_files_are_written_whole(tmp_path: Path) -> None:
    page = write_report(report(), tmp_path / "new")
    assert sorted(path.name for path in page.parent.iterdir()) == ["report.html", "report.json"]
    assert page.read_text("utf-8") == as_html(report())
    assert json.loads((page.parent / "report.json").read_text("utf-8")) == as_json(report()) | {
        "series": [json.loads(json.dumps(each)) for each in as_json(report())["series"]]
    }


def test_a_file_in_the_way_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match=re.escape("choose another folder")):
        write_report(report(), tmp_path / "taken")
