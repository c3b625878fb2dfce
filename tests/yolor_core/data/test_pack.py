"""A packed split gives exactly what its files give, or an error that names what is wrong.

And packs on a node's own disk: copied once, used by all, and given up where there is no room.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.yolor_core.data.coco_folder import Folder, annotation, picture
from yolor_core.config import AugmentConfig, CocoConfig
from yolor_core.data import EvaluationBatches, ImageSet, TrainingBatches, load_images
from yolor_core.data.coco import load_coco
from yolor_core.data.images import Purpose
from yolor_core.data.pack import reader
from yolor_core.data.pack.format import HEADER, VERSION
from yolor_core.data.pack.reader import Pack, PackedReader, copy_packs
from yolor_core.data.pack.write import Plan, plan_pack, verify_packs, write_pack
from yolor_core.errors import ConfigError, DataError

AUGMENT = AugmentConfig(scale=0.5, translate=0.3, mixup=0.3)


@pytest.fixture
def odd(folder: Folder) -> Folder:
    """Images of many sizes and encodings, each with a box; some cannot be decoded."""
    import io

    exif, mirrored = Image.Exif(), Image.Exif()
    exif[0x0112], mirrored[0x0112] = 6, 4
    cut = io.BytesIO()
    picture(9, 90, 90).save(cut, "JPEG")
    sizes = [(64, 48), (200, 120), (96, 150), (31, 40)]
    for k, (w, h) in enumerate(sizes):
        folder.add(picture(k, w, h), f"plain{k}.jpg", (w, h), quality=92)
    folder.add(picture(4, 130, 70).convert("L"), "grey.jpg", (130, 70), exif=mirrored)
    folder.add(picture(5, 80, 120).convert("CMYK"), "cmyk.jpg", (80, 120))
    folder.add(picture(6, 100, 60), "turned.jpg", (60, 100), exif=exif)
    folder.add(picture(7, 140, 100), "larger.png", (70, 50))
    folder.add(cut.getvalue()[:-400], "cut.jpg", (90, 90))
    folder.add(b"", "empty.jpg", (150, 90))
    folder.add(b"not an image", "text.png", (20, 30))
    folder.content["annotations"] = [
        annotation(k, image["id"], [4, 4, image["width"] - 8, image["height"] - 8])
        for k, image in enumerate(folder.content["images"])
    ]
    folder.write()
    return folder


def pack(
    root: Path, split: str, size: int | None = None, purpose: Purpose | None = None, out: Path | None = None
) -> Plan:
    plan = plan_pack(root, split, size, purpose, out or root / "packed")
    write_pack(plan.target, plan.reader, plan.about, lambda count: None)
    return plan


def only(root: Path) -> None:
    """Remove the image files, so that only packs can serve."""
    shutil.rmtree(root / "images")


def training(images: ImageSet, size: int, **options: Any) -> list[Any]:
    source = TrainingBatches(images, size, 4, seed=1, **options)
    # The second epoch knows which files are without fault, and decodes only what it needs of them.
    return [b for epoch in (0, 1) for b in source.epoch(epoch, AUGMENT)]


def assert_same(first: Sequence[Any], second: Sequence[Any]) -> None:
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        for name, value in vars(a).items():
            other = getattr(b, name)
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, other), name
            else:
                np.testing.assert_array_equal(value, other)


def findings(images: ImageSet) -> dict[str, Any]:
    return {kind: (sorted(f.keys), sorted(f.examples)) for kind, f in images.report.findings.items()}


@pytest.mark.parametrize("decoded", [False, True], ids=["original", "decoded"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_and_notes_are_those_of_the_files(odd: Folder, decoded: bool, workers: int) -> None:
    files = {split: load_images(odd.config, split) for split in ("train", "val")}
    train = training(files["train"], 96)
    val = list(EvaluationBatches(files["val"], 96, 32, 4))
    for split in ("train", "val"):
        pack(odd.root, split, *((96, "train" if split == "train" else "test") if decoded else ()))
    only(odd.root)
    packed = {split: load_images(odd.config, split) for split in ("train", "val")}
    assert_same(training(packed["train"], 96, workers=workers), train)
    assert_same(list(EvaluationBatches(packed["val"], 96, 32, 4, workers=workers)), val)
    assert findings(packed["val"]) == findings(files["val"])
    assert packed["val"].report.count("unreadable") == 3
    assert packed["val"].report.count("resized") == packed["val"].report.count("rotated") == 1
    assert packed["val"].report.count("converted") == 2


@pytest.mark.parametrize("kind", ["original", "decoded"])
def test_real_images_are_those_of_the_files(real_data: Path, tmp_path: Path, kind: str) -> None:
    root = real_data / "coco_multitask"
    size: tuple[int, Purpose] | tuple[()] = (320, "train") if kind == "decoded" else ()
    plan = pack(root, "val2017", *size, out=tmp_path / kind)
    assert plan.target.stat().st_size == pytest.approx(plan.bytes, rel=0.01)
    files = load_coco(root, "val2017", use_packs=False)
    packed = load_images(CocoConfig(root=str(root), train="val2017", packs=str(tmp_path / kind)), "train")
    assert_same(training(packed, 320, keep_one_in=4), training(files, 320, keep_one_in=4))
    assert findings(packed) == findings(files)


def test_a_decoded_pack_is_used_for_its_size_and_purpose_alone(odd: Folder) -> None:
    files = load_images(odd.config, "train")
    expected = training(files, 64), list(EvaluationBatches(files, 96, 32, 4))
    target = pack(odd.root, "train", 96, "train").target
    images = load_images(odd.config, "train")
    reads = Pack(target)
    assert reads.serves(96, "train")
    assert not reads.serves(96, "test")
    assert not reads.serves(64, "train")
    assert not reads.serves(None, "train")
    assert_same(training(images, 64), expected[0])
    assert_same(list(EvaluationBatches(images, 96, 32, 4)), expected[1])
    np.testing.assert_array_equal(images.image(1), files.image(1))
    only(odd.root)
    alone = load_images(odd.config, "train")
    TrainingBatches(alone, 96, 4, seed=0)
    with pytest.raises(DataError, match=r"needed at 64 pixels for training.*--decoded 64 --purpose train"):
        TrainingBatches(alone, 64, 4, seed=0)
    with pytest.raises(DataError, match="needed at 96 pixels for testing"):
        EvaluationBatches(alone, 96, 32, 4)
    with pytest.raises(DataError, match="needed unresized"):
        alone.image(0)


def test_a_pack_in_which_nothing_was_made_smaller_serves_every_request(two_images: Folder) -> None:
    files = load_images(two_images.config, "train")
    expected = training(files, 96), list(EvaluationBatches(files, 32, 32, 4)), files.image(1)
    pack(two_images.root, "train", 64)
    only(two_images.root)
    images = load_images(two_images.config, "train")
    assert_same(training(images, 96), expected[0])
    assert_same(list(EvaluationBatches(images, 32, 32, 4)), expected[1])
    found = images.image(1)
    np.testing.assert_array_equal(found, expected[2])
    found[:] = 0  # the caller's own
    np.testing.assert_array_equal(images.image(1), expected[2])


def test_larger_images_are_stored_resized_and_smaller_ones_as_they_are(odd: Folder) -> None:
    index = Pack(pack(odd.root, "train", 96).target).index
    sizes = [(int(r["width"]), int(r["height"])) for r in index]
    assert sizes[:4] == [(64, 48), (96, 58), (61, 96), (31, 40)]
    assert [int(r["length"]) for r in index[-3:]] == [0, 0, 0]  # the unreadable ones


def test_the_environment_and_the_configuration_name_other_places(
    two_images: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(two_images.root, "train", out=tmp_path / "there")
    only(two_images.root)
    with pytest.raises(DataError, match="no image folder"):
        load_images(two_images.config, "train")
    configured = two_images.config.model_copy(update={"packs": str(tmp_path / "there")})
    assert load_images(configured, "train").image(0).shape == (48, 64, 3)
    monkeypatch.setenv("ABLATE_PACKS", str(tmp_path / "there"))
    assert load_images(two_images.config, "train").image(0).shape == (48, 64, 3)


def test_an_open_pack_can_be_pickled(two_images: Folder) -> None:
    pack(two_images.root, "train")
    images = load_images(two_images.config, "train")
    again = pickle.loads(pickle.dumps(images))
    np.testing.assert_array_equal(again.image(1), images.image(1))


def overwrite(path: Path, offset: int, data: bytes) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(offset, 0 if offset >= 0 else 2)
        file.write(data)


@pytest.mark.parametrize("size", [None, 96], ids=["original", "decoded"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_record_is_an_error_that_names_file_image_and_remedy(
    odd: Folder, size: int | None, workers: int
) -> None:
    target = pack(odd.root, "train", size).target
    record = Pack(target).index[1]
    overwrite(target, int(record["offset"]) + int(record["length"]) // 2, b"\x00\xff\x55")
    images = load_images(odd.config, "train")
    text = (
        r"train\S*\.pack: image 22 \(plain1.jpg\) is damaged; write it anew with `ablate data pack .* --force"
    )
    with pytest.raises(DataError, match=text) as caught:
        training(images, 96, workers=workers)
    assert "Traceback" not in str(caught.value)
    assert len(images.scaled(0, 96, "train").pixels) == 72  # the others are sound
    (report,) = verify_packs(
        odd.root, "train", odd.root / "packed", load_coco(odd.root, "train", use_packs=False)
    )
    assert "1 of 11 images are damaged: 22" in str(report.problem)


def lose_a_box(folder: Path) -> None:
    path = folder / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"].pop()
    path.write_text(json.dumps(content))


DAMAGES = {
    "its header is damaged": lambda p: overwrite(p, 24, b"\xff"),
    "it is not a pack": lambda p: overwrite(p, 0, b"PK"),
    "it has format 1, which does not tell the files that it was made of": lambda p: overwrite(p, 8, b"\1"),
    "it belongs to other annotations": lambda p: lose_a_box(p.parents[1] / "annotations"),
    f"it has format {VERSION + 6}": lambda p: overwrite(p, 8, bytes([VERSION + 6])),
    "its index is damaged": lambda p: overwrite(p, -5, b"\x99"),
    "its description is damaged": lambda p: overwrite(p, -Pack(p).index.nbytes - 20, b"\x99"),
    "it has 100 bytes instead of": lambda p: (p.chmod(0o644), os.truncate(p, 100)),
    "less than a header": lambda p: (p.chmod(0o644), os.truncate(p, HEADER.size - 1)),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_a_damaged_pack_is_passed_over_with_one_warning(
    two_images: Folder, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = load_images(two_images.config, "train").image(0)
    target = pack(two_images.root, "train").target
    DAMAGES[reason](target)
    with caplog.at_level(logging.WARNING, "yolor_core"):
        images = load_images(two_images.config, "train")
        np.testing.assert_array_equal(images.image(0), expected)
    (record,) = caplog.records
    assert reason in record.getMessage()
    assert f"ablate data pack {two_images.root} --split train --force" in record.getMessage()


def replace(path: Path) -> None:
    """Other pixels in as many bytes, with the time of modification that the file had."""
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[-30] ^= 0xFF
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def rewrite(path: Path) -> None:
    """The same file with other times, as a copy or a checkout of it has."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    os.utime(path, (1, 1))


CHANGES = {
    "grown": lambda path: path.write_bytes(path.read_bytes() + b" "),
    "same size, other time": lambda path: (replace(path), os.utime(path, (5, 5))),
    "same size and time": replace,
    "emptied": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("size", [None, 96], ids=["original", "decoded"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_pack_whose_pictures_changed_is_passed_over_with_one_warning(
    two_images: Folder, change: str, size: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    pack(two_images.root, "train", size)
    CHANGES[change](two_images.root / "images" / "train" / "b.png")
    with caplog.at_level(logging.WARNING, "yolor_core"):
        images = load_images(two_images.config, "train")
        load_images(two_images.config, "train")
    (told,) = caplog.messages
    assert "1 of 2 files in" in told
    assert "b.png (changed)" in told
    assert f"`ablate data pack {two_images.root} --split train" in told
    files = load_coco(two_images.root, "train", use_packs=False)
    for index in range(2):
        np.testing.assert_array_equal(images.image(index), files.image(index))
    (report,) = verify_packs(two_images.root, "train", two_images.root / "packed", files)
    assert "b.png (changed)" in str(report.problem)
    assert "--force" in str(report.problem)


def test_a_pack_is_used_where_pictures_have_other_times_or_are_not_there(
    two_images: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = pack(two_images.root, "train").target
    expected = load_images(two_images.config, "train").image(1)
    for path in (two_images.root / "images" / "train").iterdir():
        rewrite(path)
    copy = shutil.copytree(two_images.root, tmp_path / "copy", copy_function=shutil.copyfile)
    bare = shutil.copytree(two_images.root, tmp_path / "bare")
    shutil.rmtree(bare / "images" / "train")
    (bare / "images" / "train").mkdir()
    with caplog.at_level(logging.WARNING, "yolor_core"):
        for root in (two_images.root, copy, bare):
            images = load_images(CocoConfig(root=str(root), train="train", val="val"), "train")
            np.testing.assert_array_equal(images.image(1), expected)
            assert isinstance(images._reader, PackedReader)
            assert [each.path for each in images._reader.packs] == [root / "packed" / target.name]
    assert not caplog.messages


def test_a_pack_is_not_used_where_some_pictures_are_missing(
    two_images: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    pack(two_images.root, "train")
    (two_images.root / "images" / "train" / "a.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images are missing .*: a.png"):
        load_images(two_images.config, "train")
    assert "a.png (missing)" in caplog.text


def test_packs_of_different_pictures_alone_are_an_error_that_names_both(two_images: Folder) -> None:
    first = pack(two_images.root, "train").target
    replace(two_images.root / "images" / "train" / "b.png")
    second = pack(two_images.root, "train", 96).target
    only(two_images.root)
    with pytest.raises(DataError, match="1 of 2 images are different pictures") as caught:
        load_images(two_images.config, "train")
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)


def test_packs_of_other_splits_are_left_alone(two_images: Folder, caplog: pytest.LogCaptureFixture) -> None:
    target = pack(two_images.root, "train").target
    target.rename(target.with_name("train.small.original.pack"))
    with caplog.at_level(logging.WARNING, "yolor_core"):
        load_images(two_images.config, "train")
        load_images(two_images.config, "val")
    assert not caplog.records


def test_a_full_disk_stops_before_writing_and_names_both_numbers(
    two_images: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_pack(two_images.root, "train", None, None, two_images.root / "packed")
    usage = shutil.disk_usage(two_images.root)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=rf"{plan.bytes} bytes .* are needed and 1000 .* are free"):
        write_pack(plan.target, plan.reader, plan.about, lambda count: None)
    assert list((two_images.root / "packed").iterdir()) == []


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (KeyboardInterrupt(), pytest.raises(KeyboardInterrupt)),
        (OSError(28, "full"), pytest.raises(DataError, match=r"bytes .* are needed and .* are free")),
    ],
    ids=["interrupted", "full"],
)
def test_a_writing_that_ends_in_the_middle_leaves_the_old_pack(
    two_images: Folder, trouble: BaseException, error: Any
) -> None:
    plan = pack(two_images.root, "train")
    before = plan.target.read_bytes()

    def fail(count: int) -> None:
        raise trouble

    with error:
        write_pack(plan.target, plan.reader, plan.about, fail)
    assert list(plan.target.parent.iterdir()) == [plan.target]
    assert plan.target.read_bytes() == before


def test_what_a_killed_writer_left_is_removed_by_the_next_but_not_that_of_a_living_one(
    two_images: Folder,
) -> None:
    code = (
        "import time; from pathlib import Path\n"
        "from yolor_core.data.pack.write import plan_pack, write_pack\n"
        f"root = Path({str(two_images.root)!r})\n"
        "p = plan_pack(root, 'train', None, None, root / 'packed')\n"
        "write_pack(p.target, p.reader, p.about, lambda n: (print('begun', flush=True), time.sleep(60)))\n"
    )
    folder = two_images.root / "packed"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begun\n"
        (left,) = folder.iterdir()
        assert left.name.startswith(".")
        target = pack(two_images.root, "train").target
        assert sorted(folder.iterdir()) == sorted([left, target])  # the other one is still at it
        target.unlink()
        assert load_images(two_images.config, "train").image(0).shape == (48, 64, 3)  # half a pack is none
        writer.send_signal(signal.SIGKILL)
    assert list(folder.iterdir()) == [left]
    target = pack(two_images.root, "train").target
    assert list(folder.iterdir()) == [target]


def test_a_folder_that_cannot_be_written_to_is_an_error(two_images: Folder) -> None:
    (two_images.root / "packed").write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"cannot be written: .*; choose another place with --out"):
        pack(two_images.root, "train")


def test_missing_images_are_named_before_anything_is_written(two_images: Folder) -> None:
    (two_images.root / "images" / "train" / "b.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images are missing .*: b.png"):
        pack(two_images.root, "train")
    assert not (two_images.root / "packed").exists()


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


def used(data: CocoConfig) -> Path:
    assert data.packs is not None
    return Path(data.packs)


def content(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.iterdir() if not p.name.startswith(".")}


def test_the_packs_of_both_splits_are_used_from_the_disk(data: CocoConfig, tmp_path: Path) -> None:
    copied = copy_packs(data, "$ABLATE_TEST_DISK")
    assert used(copied).is_relative_to(tmp_path / "disk")
    assert content(used(copied)) == {name: name.encode() * 100 for name in NAMES}
    assert copied.model_copy(update={"packs": data.packs}) == data


def test_the_next_job_of_the_node_copies_nothing(
    data: CocoConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = copy_packs(data, "${ABLATE_TEST_DISK}")
    monkeypatch.setattr(reader.shutil, "copyfile", lambda *_: pytest.fail("copied again"))
    assert copy_packs(data, str(tmp_path / "disk")) == first


def test_a_pack_that_was_written_anew_is_copied_anew(data: CocoConfig) -> None:
    copied = used(copy_packs(data, "$ABLATE_TEST_DISK"))
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

    monkeypatch.setattr(reader.shutil, "copyfile", die)
    with pytest.raises(KeyboardInterrupt):
        copy_packs(data, "$ABLATE_TEST_DISK")
    assert not [path for path in (tmp_path / "disk").rglob("*") if path.is_file() and path.stat().st_size]
    monkeypatch.setattr(reader.shutil, "copyfile", copyfile)
    assert content(used(copy_packs(data, "$ABLATE_TEST_DISK")))[NAMES[0]] == NAMES[0].encode() * 100


def test_where_there_is_no_room_the_shared_packs_are_used(
    data: CocoConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(reader.shutil, "disk_usage", lambda _: usage(10, 10, 10))
    assert copy_packs(data, "$ABLATE_TEST_DISK") == data
    assert "GB needed" in "".join(capsys.readouterr())


def test_without_packs_the_files_are_used(data: CocoConfig, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(Path(data.root) / "packed")
    assert copy_packs(data, "$ABLATE_TEST_DISK") == data
    assert "ablate data pack" in capsys.readouterr().err


def test_packs_elsewhere_are_found(data: CocoConfig, tmp_path: Path) -> None:
    (Path(data.root) / "packed").rename(tmp_path / "elsewhere")
    moved = data.model_copy(update={"packs": str(tmp_path / "elsewhere")})
    assert set(content(used(copy_packs(moved, "$ABLATE_TEST_DISK")))) == set(NAMES)


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
    assert content(used(first))[NAMES[0]] == NAMES[0].encode() * 100
    assert content(used(second))[NAMES[0]] == b"other"


def note_copies(data: CocoConfig, disk: str, log: Path) -> None:
    copyfile = shutil.copyfile

    def noting(source: Path, target: Path) -> None:
        with log.open("a") as file:
            file.write(f"{Path(source).name}\n")
        copyfile(source, target)

    reader.shutil.copyfile = noting  # type: ignore[assignment]
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
