"""Packs on a node's own disk: copied once, used by all, and given up where there is no room."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from yolor_core.config import CocoConfig
from yolor_core.data.pack import local
from yolor_core.data.pack.local import copy_packs
from yolor_core.errors import ConfigError

NAMES = ("train.train64.pack", "val.test64.pack")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CocoConfig:
    """A dataset with a pack of each split, and some that nobody asked for."""
    monkeypatch.delenv("ABLATE_PACKS", raising=False)
    monkeypatch.setenv("ABLATE_TEST_DISK", str(tmp_path / "disk"))
    packed = tmp_path / "data" / "packed"
    packed.mkdir(parents=True)
    for name in (*NAMES, "test.test64.pack", "train.small.original.pack", ".train.train64.pack"):
        (packed / name).write_bytes(name.encode() * 100)
    return CocoConfig(root=str(tmp_path / "data"), train="train", val="val")


def folder(data: CocoConfig) -> Path:
    assert data.packs is not None
    return Path(data.packs)


def content(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.iterdir() if not p.name.startswith(".")}


def test_the_packs_of_both_splits_are_used_from_the_disk(data: CocoConfig, tmp_path: Path) -> None:
    copied = copy_packs(data, "$ABLATE_TEST_DISK")
    assert folder(copied).is_relative_to(tmp_path / "disk")
    assert content(folder(copied)) == {name: name.encode() * 100 for name in NAMES}
    assert copied.model_copy(update={"packs": data.packs}) == data


def test_the_next_job_of_the_node_copies_nothing(
    data: CocoConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = copy_packs(data, "${ABLATE_TEST_DISK}")
    monkeypatch.setattr(local.shutil, "copyfile", lambda *_: pytest.fail("copied again"))
    assert copy_packs(data, str(tmp_path / "disk")) == first


def test_a_pack_that_was_written_anew_is_copied_anew(data: CocoConfig) -> None:
    copied = folder(copy_packs(data, "$ABLATE_TEST_DISK"))
    source = Path(data.root) / "packed" / NAMES[0]
    before = source.stat()
    source.write_bytes(b"y" * before.st_size)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    copy_packs(data, "$ABLATE_TEST_DISK")
    assert (copied / NAMES[0]).read_bytes() == b"y" * before.st_size


def test_a_copy_that_was_cut_off_is_not_taken_for_whole(
    data: CocoConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copyfile = shutil.copyfile

    def die(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(local.shutil, "copyfile", die)
    with pytest.raises(KeyboardInterrupt):
        copy_packs(data, "$ABLATE_TEST_DISK")
    assert not [path for path in (tmp_path / "disk").rglob("*") if path.is_file() and path.stat().st_size]
    monkeypatch.setattr(local.shutil, "copyfile", copyfile)
    assert content(folder(copy_packs(data, "$ABLATE_TEST_DISK")))[NAMES[0]] == NAMES[0].encode() * 100


def test_where_there_is_no_room_the_shared_packs_are_used(
    data: CocoConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(local.shutil, "disk_usage", lambda _: usage(10, 10, 10))
    assert copy_packs(data, "$ABLATE_TEST_DISK") == data
    assert "GB needed" in "".join(capsys.readouterr())


def test_without_packs_the_files_are_used(data: CocoConfig, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(Path(data.root) / "packed")
    assert copy_packs(data, "$ABLATE_TEST_DISK") == data
    assert "ablate data pack" in capsys.readouterr().err


def test_packs_elsewhere_are_found(data: CocoConfig, tmp_path: Path) -> None:
    (Path(data.root) / "packed").rename(tmp_path / "elsewhere")
    moved = data.model_copy(update={"packs": str(tmp_path / "elsewhere")})
    assert set(content(folder(copy_packs(moved, "$ABLATE_TEST_DISK")))) == set(NAMES)


def test_a_disk_that_is_not_there_is_named(
    data: CocoConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ABLATE_TEST_DISK")
    with pytest.raises(ConfigError, match=r"local_disk = '\$ABLATE_TEST_DISK'.*not set"):
        copy_packs(data, "$ABLATE_TEST_DISK")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"local_disk = .*file"):
        copy_packs(data, str(tmp_path / "file"))


def test_two_datasets_on_one_node_keep_their_own_packs(data: CocoConfig, tmp_path: Path) -> None:
    shutil.copytree(data.root, tmp_path / "other")
    for name in NAMES:
        (tmp_path / "other" / "packed" / name).write_bytes(b"other")
    first = copy_packs(data, "$ABLATE_TEST_DISK")
    second = copy_packs(data.model_copy(update={"root": str(tmp_path / "other")}), "$ABLATE_TEST_DISK")
    assert content(folder(first))[NAMES[0]] == NAMES[0].encode() * 100
    assert content(folder(second))[NAMES[0]] == b"other"


def note_copies(data: CocoConfig, disk: str, log: Path) -> None:
    copyfile = shutil.copyfile

    def noting(source: Path, target: Path) -> None:
        with log.open("a") as file:
            file.write(f"{Path(source).name}\n")
        copyfile(source, target)

    local.shutil.copyfile = noting  # type: ignore[assignment]
    copy_packs(data, disk)


def test_processes_of_a_node_copy_once_between_them(data: CocoConfig, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    log = tmp_path / "copies"
    processes = [
        context.Process(target=note_copies, args=(data, str(tmp_path / "disk"), log)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    assert sorted(log.read_text().split()) == sorted(NAMES)
