"""What is not weights, or no longer, is one error that says what it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.yolor_core.weights.fake_authors import save
from yolor_core.errors import WeightsError
from yolor_core.models import create_model
from yolor_core.weights import export_weights, import_weights

MODEL = "yolor-ssss-s2d"
CONTENTS = {
    "empty": (b"", "empty"),
    "html": (b"\n<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title></html>", "web page"),
    "html without doctype": (b"\xef\xbb\xbf<HTML><head></head></HTML>", "web page"),
    "xhtml": (b"<?xml version='1.0'?>\n<!-- x --><!DOCTYPE html PUBLIC 'a'><html/>", "web page"),
    "html in utf-16": ("<!doctype html><p>sign in".encode("utf-16"), "web page"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML, .*'AccessDenied'"),
    "xml without declaration": (b"<Error><Message>No such key</Message></Error>", "XML, .*'No such key'"),
    "json": (b'{"error":"Entry not found"}', "JSON, .*'Entry not found'"),
    "json list": (b"[{}]", "JSON, not weights"),
    "gzip": (b"\x1f\x8b" + b"\0" * 50, "gzip archive, not weights"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS pointer"),
    "text": (b"404: Not Found", "not a weights file"),
    "another zip": (b"PK\x03\x04" + b"\0" * 100, "zip archive"),
    "numbers": (np.arange(100, dtype="<f8").tobytes(), "not a weights file"),
}


@pytest.mark.parametrize("suffix", [".pt", ".weights", ".safetensors"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_what_is_not_weights_is_called_what_it_is(kind: str, suffix: str, tmp_path: Path) -> None:
    content, message = CONTENTS[kind]
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    if suffix == ".weights" and kind == "numbers":  # as good a header as any, but no cfg model
        message = "cfg flavour"
    with pytest.raises(WeightsError, match=message) as caught:
        import_weights(path, MODEL)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        import_weights(tmp_path / "none.pt", MODEL)
    with pytest.raises(WeightsError, match="folder"):
        import_weights(tmp_path, MODEL)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("files")
    save({"model": {f"a.{i}.weight": torch.randn(8, 8) for i in range(20)}}, folder / "zip", legacy=False)
    save({"model": {f"a.{i}.weight": torch.randn(8, 8) for i in range(20)}}, folder / "legacy", legacy=True)
    export_weights(create_model(MODEL), folder / "safetensors", "safetensors")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("part", [0.01, 0.1, 0.3, 0.6, 0.9, 0.999])
def test_truncated_anywhere(kind: str, part: float, files: dict[str, bytes], tmp_path: Path) -> None:
    data, path = files[kind], tmp_path / "w.pt"
    path.write_bytes(data[: max(int(len(data) * part), 20)])
    with pytest.raises(WeightsError, match="truncated") as caught:
        import_weights(path, MODEL)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_whole_files_fail_only_for_being_another_model(
    kind: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(files[kind])
    with pytest.raises(WeightsError, match=f"is not {MODEL}"):
        import_weights(path, MODEL)


def test_changed_bit_of_a_zip_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    model = create_model(MODEL)
    export_weights(model, path, "authors")
    data = bytearray(path.read_bytes())
    needle = model.state_dict()["predictor_p3.weight"].numpy().tobytes()[:64]
    data[data.index(needle)] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"damaged.*CRC"):
        import_weights(path, MODEL)


@pytest.mark.parametrize(
    ("value", "message"),
    [({"epoch": 3}, "keys 'epoch'"), ([1, 2], "a list"), ({"model": None, "ema": None}, "no network")],
)
def test_checkpoint_without_a_network(value: object, message: str, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=message):
        import_weights(tmp_path / "w.pt", MODEL)
