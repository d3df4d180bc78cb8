"""Downloads from a hub that stalls, cuts and corrupts: continued, or refused; never a bad file under its name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants as hub_constants
import pytest
from huggingface_hub.utils import logging as hub_logging

from tests.tiny import TINY
from tests.unit.hub import COMMIT, Hub, serving
from tests.unit.reference_files import reference
from x2roto.engine import convert as convert_module
from x2roto.engine import pull as puller
from x2roto.engine.model_folder import damaged_files, find_model, read_header
from x2roto.engine.pull import (
    BASE_REPOSITORY,
    CHECKPOINT_REPOSITORY,
    HubFile,
    Snapshot,
    base_files,
    download,
    find_checkpoint,
    snapshot,
)
from x2roto.errors import ModelError, OutputError

WEIGHTS = "pytorch_model.bin"
DATA = bytes(range(256)) * 400


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one repository of a large and a small file; short timeouts, no waiting between retries."""
    with serving(Hub({"some/repo": {WEIGHTS: DATA, "config.json": b"{}"}})) as hub:
        monkeypatch.setattr(hub_constants, "ENDPOINT", hub.endpoint)
        template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub_constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
        # What arrives reaches the file in pieces of this size; the last piece of a broken answer is lost.
        monkeypatch.setattr(hub_constants, "DOWNLOAD_CHUNK_SIZE", 1024)
        monkeypatch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda _: None))
        monkeypatch.setenv("X2ROTO_CACHE", str(tmp_path / "cache"))
        hub_logging.set_verbosity_error()
        yield hub


def fetch(folder: Path, name: str = WEIGHTS) -> Path:
    source = snapshot("some/repo", "main")
    return download(source, next(file for file in source.files if file.name == name), folder)


def test_a_revision_is_resolved_to_its_commit_and_digests(hub: Hub) -> None:
    source = snapshot("some/repo", "main")
    assert (source.repository, source.commit) == ("some/repo", COMMIT)
    sizes = {file.name: (file.size, len(file.digest)) for file in source.files}
    assert sizes == {WEIGHTS: (len(DATA), 64), "config.json": (2, 40)}


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_file_is_fetched_once(name: str, hub: Hub, tmp_path: Path) -> None:
    path = fetch(tmp_path, name)
    assert path.read_bytes() == hub.repositories["some/repo"][name]
    assert fetch(tmp_path, name) == path
    assert hub.requests == [(name, None)]


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_a_broken_connection_is_continued(fault: str, hub: Hub, tmp_path: Path) -> None:
    hub.faults[WEIGHTS] += [fault, fault]
    assert fetch(tmp_path).read_bytes() == DATA
    half = len(DATA) // 2
    assert hub.requests == [
        (WEIGHTS, None),
        (WEIGHTS, f"bytes={half}-"),
        (WEIGHTS, f"bytes={half + half // 2}-"),
    ]


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_an_interrupted_pull_is_continued_by_the_next(fault: str, hub: Hub, tmp_path: Path) -> None:
    source = snapshot("some/repo", "main")
    file = source.files[0]
    unfinished = tmp_path / f"{WEIGHTS}.part"
    unfinished.write_bytes(DATA[:1000])
    hub.faults[WEIGHTS] += [fault]
    assert download(source, file, tmp_path).read_bytes() == DATA
    assert hub.requests[0] == (WEIGHTS, "bytes=1000-")
    assert not unfinished.exists()


def test_a_hub_that_never_answers_is_one_error_and_what_came_is_kept(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["some/repo"][WEIGHTS] = DATA[:4096]
    # Each answer brings half of what lacks; below one piece nothing more comes, for any number of attempts.
    hub.faults[WEIGHTS] += ["stall"] * 20
    with pytest.raises(ModelError, match=f"cannot fetch {WEIGHTS} of some/repo .*timed out.*pull again"):
        fetch(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {f"{WEIGHTS}.part": DATA[:3072]}


def test_an_answer_that_is_too_short_is_one_error_and_is_continued(hub: Hub, tmp_path: Path) -> None:
    hub.faults[WEIGHTS] += ["short"]
    with pytest.raises(ModelError, match=r"arrived cut short; pull again"):
        fetch(tmp_path)
    assert not (tmp_path / WEIGHTS).exists()
    assert fetch(tmp_path).read_bytes() == DATA
    assert hub.requests[-1] == (WEIGHTS, f"bytes={len(DATA) // 2}-")


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_wrong_content_is_fetched_once_more(name: str, hub: Hub, tmp_path: Path) -> None:
    hub.faults[name] += ["corrupt"]
    assert fetch(tmp_path, name).read_bytes() == hub.repositories["some/repo"][name]
    assert hub.requests == [(name, None)] * 2


def test_wrong_content_twice_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.faults[WEIGHTS] += ["corrupt", "corrupt"]
    with pytest.raises(ModelError, match="arrived 2 times with a wrong digest"):
        fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("leftover", [DATA[:-1] + b"?", DATA + b"more"])
def test_a_leftover_of_something_else_is_replaced(leftover: bytes, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / f"{WEIGHTS}.part").write_bytes(leftover)
    assert fetch(tmp_path).read_bytes() == DATA


def test_a_damaged_finished_file_is_replaced(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes(DATA[:-1] + b"?")
    assert fetch(tmp_path).read_bytes() == DATA


def test_a_folder_that_cannot_be_written_is_an_output_error(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        fetch(tmp_path / "file" / "folder")


def test_a_hub_that_cannot_be_used_is_one_error(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="the hub has no some/other at main, or wants a token"):
        snapshot("some/other", "main")
    with pytest.raises(ModelError, match="the hub has no some/repo at gone"):
        snapshot("some/repo", "gone")
    hub.faults["api"] += ["page"]
    with pytest.raises(ModelError, match="no hub answers for some/repo"):
        snapshot("some/repo", "main")
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        snapshot("some/repo", "main")
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="cannot fetch some/repo at main"):
        snapshot("some/repo", "main")


def _listing(*names: str) -> Snapshot:
    return Snapshot("some/repo", COMMIT, tuple(HubFile(name, 1, "0" * 64) for name in names))


@pytest.mark.parametrize(
    ("names", "path", "found"),
    [
        (["README.md", "pytorch_model.bin"], None, "pytorch_model.bin"),
        (["s1_train/a/pytorch_model.bin", "s3_train/b/pytorch_model.bin"], None, "s3_train/b/pytorch_model.bin"),
        (["a/pytorch_model.bin", "b/pytorch_model.bin"], "b/pytorch_model.bin", "b/pytorch_model.bin"),
        (["model.safetensors"], "model.safetensors", "model.safetensors"),
    ],
)
def test_the_checkpoint_is_found(names: list[str], path: str | None, found: str) -> None:
    assert find_checkpoint(_listing(*names), path).name == found


@pytest.mark.parametrize(
    ("names", "path"), [(["README.md"], None), (["a/pytorch_model.bin", "b/pytorch_model.bin"], None), ([], "x.bin")]
)
def test_an_unclear_checkpoint_asks_for_its_name(names: list[str], path: str | None) -> None:
    with pytest.raises(ModelError, match="name one with --checkpoint-file"):
        find_checkpoint(_listing(*names), path)


def test_only_what_the_base_model_needs_is_fetched() -> None:
    needed = ["config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json"]
    others = ["README.md", "onnx/model.safetensors", "../up.safetensors", "video_preprocessor_config.json"]
    assert [file.name for file in base_files(_listing(*needed, *others))] == needed
    with pytest.raises(ModelError, match=r"lacks tokenizer.json"):
        base_files(_listing(*needed[:3]))
    with pytest.raises(ModelError, match="lacks safetensors weights"):
        base_files(_listing("config.json", "tokenizer.json"))


@pytest.fixture
def released(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub with a small model in place of the released one."""
    source = tmp_path / "source"
    source.mkdir()
    checkpoint, base = reference().write(source)
    hub.repositories[CHECKPOINT_REPOSITORY] = {f"s3_train/x/{WEIGHTS}": checkpoint.read_bytes()}
    hub.repositories[BASE_REPOSITORY] = {path.name: path.read_bytes() for path in base.iterdir()}
    shutil.rmtree(source)
    monkeypatch.setattr(convert_module, "ModelConfig", lambda language: replace(TINY, language=language))
    return hub


def test_a_pulled_model_can_be_named_and_is_whole(released: Hub, tmp_path: Path) -> None:
    told: list[str] = []
    folder = puller.pull(tell=told.append)
    assert find_model("x2sam-4b") == folder == tmp_path / "cache" / "models" / "x2sam-4b"
    assert damaged_files(folder) == []
    assert read_header(folder).revisions == {CHECKPOINT_REPOSITORY: COMMIT, BASE_REPOSITORY: COMMIT}
    assert list((tmp_path / "cache" / "downloads").iterdir()) == []
    assert told[0].startswith(f"1/5 {CHECKPOINT_REPOSITORY} s3_train/x/{WEIGHTS}")
    with pytest.raises(OutputError, match="exists already"):
        puller.pull()
    assert puller.pull(replace=True) == folder


def test_what_was_fetched_is_kept_when_a_later_file_fails(released: Hub, tmp_path: Path) -> None:
    released.faults["tokenizer.json"] += ["corrupt", "corrupt"]
    with pytest.raises(ModelError, match=r"tokenizer.json .* wrong digest"):
        puller.pull()
    assert not (tmp_path / "cache" / "models").exists()
    puller.pull()
    fetched = [name for name, _ in released.requests]
    assert fetched.count("model.safetensors") == fetched.count(f"s3_train/x/{WEIGHTS}") == 1


def test_a_full_disk_is_told_before_fetching(released: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OutputError, match="set X2ROTO_CACHE to a larger disk"):
        puller.pull()
    assert released.requests == []


@pytest.mark.parametrize("name", ["../up", "", ".hidden", "a/b"])
def test_a_model_needs_a_plain_name(name: str) -> None:
    with pytest.raises(ModelError, match="cannot name a model"):
        puller.pull(name=name)
