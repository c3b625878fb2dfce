"""The frozen code that queued jobs run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slurm import snapshot
from slurm.snapshot import PACKAGES, ROOT, freeze


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small copy of the suite's layout."""
    root = tmp_path / "checkout"
    for package in PACKAGES:
        (root / package / "inner").mkdir(parents=True)
        (root / package / "__init__.py").write_text("")
        (root / package / "inner" / "a.py").write_text(f"NAME = {package!r}\n")
        (root / package / "table.csv").write_text("a,b\n")
        (root / package / "__pycache__").mkdir()
        (root / package / "__pycache__" / "a.py").write_text("old")
        (root / package / "notes.ckpt").write_text("not code")
    (root / "results").mkdir()
    (root / "results" / "run.py").write_text("not a package")
    return root


def test_the_packages_are_copied_with_their_data(checkout: Path, tmp_path: Path) -> None:
    code = freeze(tmp_path / "results", {"commit": "abc", "dirty": True}, checkout)
    copied = {path.relative_to(code).as_posix() for path in code.rglob("*") if path.is_file()}
    expected = {f"{p}/{name}" for p in PACKAGES for name in ("__init__.py", "inner/a.py", "table.csv")}
    assert copied == expected | {"snapshot.json"}
    assert (code / "slurm" / "inner" / "a.py").read_text() == "NAME = 'slurm'\n"
    record = json.loads((code / "snapshot.json").read_text())
    assert (record["commit"], record["dirty"]) == ("abc", True)
    assert code.is_relative_to(tmp_path / "results")
    assert code.stat().st_mode & 0o055 == 0o055  # the group reads it, and so do the nodes' other users


def test_the_same_code_is_copied_once_and_other_code_beside_it(checkout: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    first = freeze(results, {"commit": "abc"}, checkout)
    stamp = (first / "snapshot.json").stat().st_mtime_ns
    (checkout / "slurm" / "notes.ckpt").write_text("still not code")
    os.utime(checkout / "slurm" / "table.csv")
    assert freeze(results, {"commit": "def"}, checkout) == first
    assert (first / "snapshot.json").stat().st_mtime_ns == stamp
    (checkout / "slurm" / "table.csv").write_text("a,c\n")
    second = freeze(results, {}, checkout)
    assert second != first
    assert (first / "slurm" / "table.csv").read_text() == "a,b\n"
    (checkout / "slurm" / "table.csv").rename(checkout / "slurm" / "other.csv")
    assert freeze(results, {}, checkout) not in (first, second)
    assert {path.name for path in (results / "code").iterdir()} >= {first.name, second.name}
    assert not list((results / "code").glob(".building*"))


def test_editing_the_checkout_does_not_change_what_is_frozen(checkout: Path, tmp_path: Path) -> None:
    code = freeze(tmp_path / "results", {}, checkout)
    shutil.rmtree(checkout)
    command = "from slurm.inner.a import NAME; print(NAME)"
    output = subprocess.run(
        [sys.executable, "-S", "-c", command],
        env={"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert output == "slurm\n"


def test_somebody_who_was_quicker_is_no_error(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def late(source: Path, target: Path) -> None:
        shutil.copytree(source, target)
        rename(source, target)

    monkeypatch.setattr(snapshot.os, "rename", late)
    code = freeze(tmp_path / "results", {}, checkout)
    assert (code / "slurm" / "inner" / "a.py").is_file()
    assert not list((tmp_path / "results" / "code").glob(".building*"))


def test_a_copy_that_cannot_be_put_in_place_is_an_error(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(snapshot.os, "rename", refuse)
    with pytest.raises(OSError, match="Permission denied"):
        freeze(tmp_path / "results", {}, checkout)


def test_a_relative_results_folder_gives_a_whole_path(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = freeze(Path("results"), {}, checkout)
    assert code.is_absolute() and code.is_dir()


def test_all_that_the_suite_imports_is_frozen(tmp_path: Path) -> None:
    tops = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert tops <= set(PACKAGES)
    kinds = {
        p.suffix
        for name in PACKAGES
        for p in (ROOT / name).rglob("*")
        if "__pycache__" not in p.parts and p.is_file()
    }
    assert kinds <= {*snapshot.KINDS, ""}  # a new kind of file has to be decided about
