"""The released model, downloaded from the Hugging Face Hub and converted into the user cache.

A download goes to a `.part` file that survives an interruption and is continued; it takes its final name only
once it has the digest the Hub announces. `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` and the timeouts of
`huggingface_hub` are respected.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get

# Public, but exported lazily, which type checkers do not see.
from huggingface_hub.utils import build_hf_headers, httpx  # type: ignore[attr-defined]

from x2roto.engine.convert import TOKENIZER_FILES, convert
from x2roto.engine.model_folder import RELEASED_MODEL, cache_folder, check_free
from x2roto.errors import ModelError, OutputError

CHECKPOINT_REPOSITORY = "hao9610/X2SAM"
BASE_REPOSITORY = "Qwen/Qwen3-VL-4B-Instruct"
REVISION = "main"
"""Resolved to a commit before the first byte is fetched; the header records that commit."""

CHECKPOINT_FILE = "pytorch_model.bin"
BASE_INDEX = "model.safetensors.index.json"
ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository. `digest`: SHA-256 of a large file, git's SHA-1 of a small one."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository at one commit."""

    repository: str
    commit: str
    files: tuple[HubFile, ...]


def pull(
    *,
    name: str = RELEASED_MODEL,
    revision: str = REVISION,
    base_revision: str = REVISION,
    checkpoint_file: str | None = None,
    dtype: str = "bfloat16",
    replace: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Download the released model and convert it; gives its folder in the user cache, usable offline.

    `revision`, `base_revision`: branch, tag or commit of the two repositories. `checkpoint_file`: path of the
    checkpoint in its repository, needed if there are several. `tell` receives one line per stage. Raises
    ModelError when a download fails for good (pulling again continues it) or the files do not fit, OutputError
    when the disk cannot take them.
    """
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise ModelError(f"{name!r} cannot name a model; use letters, digits, '-', '_' and '.'")
    out = cache_folder() / "models" / name
    check_free(out, replace=replace)
    downloads = cache_folder() / "downloads"
    trained, base = snapshot(CHECKPOINT_REPOSITORY, revision), snapshot(BASE_REPOSITORY, base_revision)
    wanted = [
        (trained, find_checkpoint(trained, checkpoint_file)),
        *((base, file) for file in base_files(base)),
    ]
    check_space(downloads, [file for _, file in wanted])
    paths = []
    for number, (source, file) in enumerate(wanted, start=1):
        tell(f"{number}/{len(wanted)} {source.repository} {file.name} ({file.size / 1e6:.0f} MB)")
        paths.append(download(source, file, download_folder(downloads, source)))
    tell(f"converting to {out}")
    revisions = {source.repository: source.commit for source in (trained, base)}
    convert(paths[0], paths[1].parent, out, dtype=dtype, revisions=revisions, replace=replace)
    for folder in {path.parent for path in paths}:
        shutil.rmtree(folder)
    return out


def snapshot(repository: str, revision: str) -> Snapshot:
    """The commit a revision stands for, and its files with digests. Raises ModelError when unreachable."""
    with _hub_errors(f"{repository} at {revision}"):
        info = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=30)
    files = tuple(
        HubFile(file.rfilename, file.size, file.lfs.sha256 if file.lfs else file.blob_id)
        for file in info.siblings or ()
        if file.size is not None and file.blob_id
    )
    if not re.fullmatch("[0-9a-f]{40}", info.sha or "") or not files:
        raise ModelError(f"the hub gives no commit or no digests for {repository}; check HF_ENDPOINT")
    return Snapshot(repository, str(info.sha), files)


def find_checkpoint(trained: Snapshot, path: str | None = None) -> HubFile:
    """The checkpoint file; the last training stage's if the repository has several stages."""
    named = [file for file in trained.files if file.name.rpartition("/")[2] == CHECKPOINT_FILE]
    last = [file for file in named if "s3_train" in file.name] or named
    chosen = [file for file in trained.files if file.name == path] if path else last
    if len(chosen) != 1:
        there = ", ".join(file.name for file in named) or "none"
        raise ModelError(
            f"{trained.repository} at {trained.commit} has {len(chosen)} files that could be the checkpoint "
            f"({there}); name one with --checkpoint-file"
        )
    return chosen[0]


def base_files(base: Snapshot) -> list[HubFile]:
    """The base model's weights, configuration and tokenizer. Raises ModelError when one is lacking."""
    names = {"config.json", BASE_INDEX, *TOKENIZER_FILES}
    found = {f.name: f for f in base.files if f.name in names or re.fullmatch(r"[\w.-]+\.safetensors", f.name)}
    lacking = {"config.json", "tokenizer.json"} - found.keys()
    if lacking or not any(name.endswith(".safetensors") for name in found):
        lacks = ", ".join(sorted(lacking)) or "safetensors weights"
        raise ModelError(f"{base.repository} at {base.commit} lacks {lacks}; choose another --base-revision")
    return list(found.values())


def check_space(folder: Path, files: Iterable[HubFile]) -> None:
    """Raise OutputError unless the disk of `folder` has room for the files and for the converted model."""
    _make_folder(folder)
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed = 2 * sum(file.size for file in files) - there
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{folder} has {free / 1e9:.1f} GB free, pulling needs {needed / 1e9:.1f} GB; "
            "set X2ROTO_CACHE to a larger disk",
            folder,
        )


def download_folder(downloads: Path, source: Snapshot) -> Path:
    """Where the files of one commit are collected."""
    return downloads / f"{source.repository.replace('/', '--')}--{source.commit}"


def download(source: Snapshot, file: HubFile, folder: Path) -> Path:
    """The file in `folder`, fetched unless it is there with the right digest; a part of it is continued.

    Raises ModelError when the connection fails or the content is wrong twice, OutputError when it cannot be
    written.
    """
    path = folder / file.name.rpartition("/")[2]
    if path.is_file() and has_digest(path, file.digest):
        return path
    _make_folder(folder)
    unfinished = path.with_name(f"{path.name}.part")
    for _ in range(ATTEMPTS):
        _continue(source, file, unfinished)
        if has_digest(unfinished, file.digest):
            return unfinished.replace(path)
        unfinished.unlink()
    raise ModelError(
        f"{file.name} of {source.repository} arrived {ATTEMPTS} times with a wrong digest; "
        "check the connection and HF_ENDPOINT, then pull again",
        path,
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}", folder) from error


def _continue(source: Snapshot, file: HubFile, unfinished: Path) -> None:
    """Fetch what `unfinished` lacks of the file."""
    what = f"{file.name} of {source.repository}"
    with _hub_errors(what), unfinished.open("ab") as stream:
        # Left by a fetch of something else: nothing of it can be kept.
        if stream.tell() > file.size:
            stream.truncate(0)
        http_get(
            hf_hub_url(source.repository, file.name, revision=source.commit),
            stream,
            resume_size=unfinished.stat().st_size,
            headers=build_hf_headers(),
            expected_size=file.size,
            displayed_filename=file.name,
        )


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    """Turn what `huggingface_hub` raises while fetching `what` into one of our errors."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ModelError(f"cannot fetch {what}: HF_HUB_OFFLINE is set; unset it to pull") from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise ModelError(f"the hub has no {what}, or wants a token (HF_TOKEN)") from error
    except httpx.HTTPError as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"cannot fetch {what} ({reason}); pull again to continue") from error
    except OSError as error:
        # Without a number it is http_get's own check of the length.
        if error.errno is None:
            raise ModelError(f"{what} arrived cut short; pull again to continue") from error
        raise OutputError(f"cannot store {what}: {error.strerror}; make room or set X2ROTO_CACHE") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"no hub answers for {what} ({error}); check HF_ENDPOINT") from error


def has_digest(path: Path, digest: str) -> bool:
    """Whether a file has a SHA-256 (64 hexadecimal digits) or a git blob SHA-1 (40)."""
    with path.open("rb") as stream:
        if len(digest) == 64:
            return hashlib.file_digest(stream, "sha256").hexdigest() == digest
        header = b"blob %d\0" % path.stat().st_size
        return hashlib.sha1(header + stream.read(), usedforsecurity=False).hexdigest() == digest
