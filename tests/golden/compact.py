"""Makes the archives in `tests/golden/data` from a full golden folder: the part a bare clone is tested with.

    python -m tests.golden.compact ../shared/golden

Kept: the whole checkpoint (so loading, LoRA merging and strictness are real), an image case and a three-frame video
case end to end, the small module cases, all text cases, and those task cases that need no picture of unknown licence.
"""

from __future__ import annotations

import io
import json
import lzma
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save

from tests.golden.folder import ARCHIVE, MEASURES

FRAMES = 3
ENGINE_CASES = (
    "mask_encoder",
    "x2sam_vid_refseg_predict",
    "x2sam_img_genseg_b2",
    "segmentor_image_b2",
)
TASK_FILES = (
    "assembly/*",
    "templates/*",
    "inputs/image_synth.png",
    "preprocess/*_synth.*",
    "preprocess/smart_resize.json",
    "preprocess/frame_sampling.json",
    "postprocess/cond_id_map.json",
    "postprocess/id_generator.json",
    "postprocess/compute_segments_collision.*",
    "postprocess/tracker.*",
    "postprocess/img_refseg.*",
)


def members(golden: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the archive, sorted."""
    engine = golden / "engine"
    index = json.loads((engine / "index.json").read_text())
    kept = {f"{case}.safetensors" for case in ENGINE_CASES}
    files = {name: facts for name, facts in index["files"].items() if isinstance(facts, str) or name in kept}
    yield "engine/index.json", json.dumps({**index, "files": files}).encode()
    for name in sorted(files):
        content = (engine / name).read_bytes()
        yield f"engine/{name}", trimmed(engine / name) if name == "mask_encoder.safetensors" else content
    for pattern in TASK_FILES:
        for path in sorted((golden / "tasks").glob(pattern)):
            yield f"tasks/{path.relative_to(golden / 'tasks')}", path.read_bytes()


def measures(golden: Path) -> Iterator[tuple[str, bytes]]:
    """The cases of evaluation, whole."""
    for part in ("metrics", "vprompt"):
        for path in sorted((golden / "tasks" / part).iterdir()):
            yield f"tasks/{part}/{path.name}", path.read_bytes()


def trimmed(path: Path) -> bytes:
    """The mask encoder case with its first frames only, which the video case needs."""
    tensors: dict[str, Any] = load_file(path)
    kept = {name: value for name, value in tensors.items() if name.startswith(("in.", "out.frame0.stage2"))}
    kept["in.pixel_values"] = kept["in.pixel_values"][:FRAMES].contiguous()
    kept["out.fpn2_all"] = tensors["out.fpn2_all"][:FRAMES].contiguous()
    return bytes(save(kept))


def main() -> None:
    golden = Path(sys.argv[1])
    pack(ARCHIVE, members(golden))
    pack(MEASURES, measures(golden))


def pack(path: Path, entries: Iterator[tuple[str, bytes]]) -> None:
    """Write an archive."""
    with (
        lzma.open(path, "wb", preset=9 | lzma.PRESET_EXTREME) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    main()
