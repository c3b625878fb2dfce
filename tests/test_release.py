"""What a release says about itself: one version and one date wherever they are written down."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
HEADING = re.compile(r"^## (\S+) - (\S+)$", flags=re.MULTILINE)


def citation(key: str) -> str:
    """A top-level value of CITATION.cff."""
    (value,) = re.findall(rf"^{key}: (.+)$", (ROOT / "CITATION.cff").read_text(), flags=re.MULTILINE)
    return value.strip('"')


def test_the_newest_entry_of_the_changelog_is_the_version_of_the_project() -> None:
    newest, day = HEADING.findall(CHANGELOG)[0]
    assert newest == VERSION == citation("version")
    assert date.fromisoformat(day).isoformat() == day == citation("date-released")


def test_the_changelog_goes_from_the_newest_version_to_the_oldest() -> None:
    entries = HEADING.findall(CHANGELOG)
    headings = re.findall(r"^## (.+)$", CHANGELOG, flags=re.MULTILINE)
    assert headings[headings[0] == "Unreleased" :] == [" - ".join(e) for e in entries]
    versions, days = [Version(v) for v, _ in entries], [date.fromisoformat(day) for _, day in entries]
    assert versions == sorted(set(versions), reverse=True)
    assert days == sorted(days, reverse=True)


def test_the_licence_of_the_citation_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation("license") == project["license"]
    assert project["license-files"] == ["LICENSE"]


def test_every_link_of_the_changelog_leads_somewhere() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", CHANGELOG)
    assert targets
    for target in targets:
        assert (ROOT / target.partition("#")[0]).is_file(), target
