"""Every awkward file of the shared footage: read as its manifest says, or refused in one clear line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from x2roto.errors import InputError
from x2roto.source import open_source

FOOTAGE = Path(__file__).resolve().parents[2] / ".." / "shared" / "footage"
MANIFEST = FOOTAGE / "MANIFEST.json"

# Refused with the default policy: damage, gaps, changing sizes, no pictures at all.
REFUSED = {
    "invalid-bitstream.webm": "no frame of its video can be decoded",
    "two_sizes.ts": "frame 1009 cannot be used: its size is 180x120",
    "audio_only.mp4": "no video stream",
    "IMG_%d.JPG": "1 of 6 frames are missing: 10",
    "truncated.mp4": "is cut short",
    "truncated_faststart.mp4": "is cut short",
    "bitrot.mp4": "frame 1002 cannot be used",
    "empty.mp4": "is empty",
    "text.mp4": "cannot be read as a movie",
    "garbage.mkv": "cannot be read as a movie",
}


def items() -> list[dict[str, Any]]:
    if not MANIFEST.is_file():
        return []
    listed: list[dict[str, Any]] = json.loads(MANIFEST.read_text())["items"]
    return [item for item in listed if item["kind"].startswith("awkward")]


pytestmark = pytest.mark.skipif(not MANIFEST.is_file(), reason="../shared/footage is not beside the repository")


@pytest.mark.parametrize("item", items(), ids=lambda item: Path(item["file"]).name)
def test_awkward_footage(item: dict[str, Any]) -> None:
    path = FOOTAGE / item["file"]
    refusal = REFUSED.get(path.name)
    if refusal is not None:
        with pytest.raises(InputError, match=refusal) as caught, open_source(path) as source:
            list(source.frames())
        assert "\n" not in str(caught.value)
        return
    with open_source(path) as source:
        info = source.info
        sizes = {frame.rgb.shape for frame in source.frames()}
        count = sum(1 for _ in source.frames())
    width, height = item["resolution"]
    turned = abs(item.get("rotation") or 0) % 180 == 90
    assert sizes == {(width, height, 3) if turned else (height, width, 3)}
    assert count == item["frames"]
    assert info.frame_count in (None, count)
    assert info.has_audio == item.get("has_audio", False)
    assert info.pixel_aspect == _aspect(item, turned)
    assert any("interlaced" in note for note in info.notes) == bool(item.get("interlaced_frames"))
    deep = (
        any(mark in str(item.get("pix_fmt")) for mark in ("10le", "12le", "48le", "f16le", "RGB_16"))
        or "png16" in item["file"]
    )
    assert (info.depth > 8) == deep


def _aspect(item: dict[str, Any], turned: bool) -> float:
    from fractions import Fraction

    stored = Fraction(item.get("sample_aspect_ratio") or 1)
    return 1 / stored if turned else stored
