"""Which commit a run says it is of: that of its own checkout, and no other repository's."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import yolor_core.identity as record


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in a new repository, as yet untracked, from which the code is run."""
    package = tmp_path / "repository" / "yolor_core"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package.parent / "README").write_text("first")
    git(package.parent, "init", "--quiet")
    git(package.parent, "add", "README")
    git(package.parent, "commit", "--quiet", "-m", "somebody's work")
    monkeypatch.setattr(record, "PACKAGE", package)
    return package


def test_a_checkout_says_its_commit_and_whether_it_was_changed(package: Path) -> None:
    git(package, "add", ".")
    git(package, "commit", "--quiet", "-m", "ours")
    commit = git(package, "rev-parse", "HEAD")
    assert record.code_commit() == (commit, False)
    (package / "__init__.py").write_text("changed = 1")
    assert record.code_commit() == (commit, True)


@pytest.mark.parametrize("ignored", [True, False])
def test_code_installed_inside_another_repository_has_no_commit(package: Path, ignored: bool) -> None:
    if ignored:
        (package.parent / ".gitignore").write_text("yolor_core/")
    assert git(package.parent, "rev-parse", "HEAD")
    assert record.code_commit() == (None, None)


def test_code_outside_any_repository_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "PACKAGE", tmp_path / "yolor_core")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert record.code_commit() == (None, None)


def test_a_frozen_copy_says_the_commit_it_was_made_of(package: Path) -> None:
    (package.parent / "snapshot.json").write_text(json.dumps({"commit": "c0ffee", "dirty": True}))
    assert record.code_commit() == ("c0ffee", True)
