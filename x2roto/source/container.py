"""What a file says of its own length, read from its outermost boxes without a demuxer.

Demuxers end quietly where a Matroska, AVI, GIF, PNG or YUV4MPEG file was cut; the file's own framing tells.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067


def missing_bytes(path: Path) -> int:
    """How many bytes the file is shorter than its framing says; 0 when whole or when the format cannot tell.

    A missing end mark (GIF, PNG) counts as one byte. Formats that can tell: MP4/MOV, Matroska/WebM, AVI and
    other RIFF, GIF, PNG, YUV4MPEG.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        file.seek(0)
        if head[4:8] in _BOX_STARTS:
            return max(0, max((end for _, _, end in _boxes(file, size)), default=0) - size)
        if head.startswith(_EBML.to_bytes(4, "big")):
            return max(0, _matroska_end(file, size) - size)
        if head.startswith(b"RIFF"):
            return max(0, int.from_bytes(head[4:8], "little") + 8 - size)
        if head.startswith(b"GIF8"):
            return int(not _tail(file, size, 64).rstrip(b"\0").endswith(b";"))
        if head.startswith(b"\x89PNG"):
            return int(b"IEND" not in _tail(file, size, 4096))
        if head.startswith(b"YUV4MPEG2"):
            return _y4m_missing(file, size)
    return 0


def is_fragmented(path: Path) -> bool:
    """Whether an MP4/MOV keeps samples in movie fragments, so that its main index does not list them all."""
    with path.open("rb") as file:
        return any(kind == b"moof" for kind, _, _ in _boxes(file, path.stat().st_size))


_BOX_STARTS = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp"}


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of the top-level boxes; the last may end past `size`."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        elif length == 0:  # to the end of the file
            length = size - at
        if length < 8:
            return
        yield header[4:8], at, at + length
        at += length


def _matroska_end(file: BinaryIO, size: int) -> int:
    """Where the segment should end; `size` when it was written without a length (a live stream)."""
    at = 0
    while at < min(size, 1 << 20):
        file.seek(at)
        kind, id_length = _ebml_number(file, keep_marker=True)
        length, size_length = _ebml_number(file)
        start = at + id_length + size_length
        unknown = length == (1 << (7 * size_length)) - 1
        if kind == _SEGMENT:
            return size if unknown else start + length
        if unknown or id_length == 0:
            return size
        at = start + length
    return size


def _ebml_number(file: BinaryIO, keep_marker: bool = False) -> tuple[int, int]:
    first = file.read(1)
    if not first or not first[0]:
        return 0, 0
    length = 9 - first[0].bit_length()
    value = first[0] if keep_marker else first[0] & ((1 << (8 - length)) - 1)
    return int.from_bytes(bytes([value]) + file.read(length - 1), "big"), length


def _tail(file: BinaryIO, size: int, length: int) -> bytes:
    file.seek(max(0, size - length), os.SEEK_SET)
    return file.read()


def _y4m_missing(file: BinaryIO, size: int) -> int:
    """Bytes the last frame lacks. Frame headers with parameters are rare and make this 0."""
    header = file.readline(4096)
    if file.readline(64) != b"FRAME\n":
        return 0
    frame = len(b"FRAME\n") + y4m_frame_bytes(header)
    return -(size - len(header)) % frame if frame > len(b"FRAME\n") else 0


def y4m_frame_bytes(header: bytes) -> int:
    """Bytes of one frame's samples for a YUV4MPEG2 header line; 0 when its colour space is not known."""
    fields = {word[:1]: word[1:] for word in header.decode("ascii", "replace").split()[1:]}
    if not {"W", "H"} <= fields.keys():
        return 0
    width, height, name = int(fields["W"]), int(fields["H"]), fields.get("C", "420")
    for suffix, depth in (("p16", 2), ("p14", 2), ("p12", 2), ("p10", 2), ("p9", 2), ("16", 2), ("", 1)):
        base = name.removesuffix(suffix) if suffix else name
        if base != name or not suffix:
            return _y4m_samples(base, width, height) * depth
    return 0


def _y4m_samples(name: str, width: int, height: int) -> int:
    half_width, half_height = -(-width // 2), -(-height // 2)
    chroma = {
        "mono": 0,
        "422": 2 * half_width * height,
        "444": 2 * width * height,
        "444alpha": 3 * width * height,
        "411": 2 * -(-width // 4) * height,
    }
    return width * height + (chroma[name] if name in chroma else 2 * half_width * half_height)
