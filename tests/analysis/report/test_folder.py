"""A report's folder is replaced as a whole, and nothing else ever is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.report.files import MAKER, MARKER, NotAReportError, replaced


def fill(target: Path, text: str) -> None:
    """A small report."""
    with replaced(target) as folder:
        (folder / "index.html").write_text(text)
        (folder / MARKER).write_text(json.dumps({"made by": MAKER}))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_report_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "report"
    fill(target, "old")
    (target / "figures").mkdir()
    fill(target, "new")
    assert (target / "index.html").read_text() == "new"
    assert names(target) == ["index.html", MARKER] and names(target.parent) == ["report"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_leaves_the_old_report_and_no_rest(
    tmp_path: Path, error: type[BaseException]
) -> None:
    fill(tmp_path / "report", "old")

    def stop_half_way() -> None:
        with replaced(tmp_path / "report") as folder:
            (folder / "index.html").write_text("half")
            raise error

    with pytest.raises(error):
        stop_half_way()
    assert (tmp_path / "report" / "index.html").read_text() == "old" and names(tmp_path) == ["report"]


def test_a_kill_between_the_two_renames_is_repaired_by_the_next_report(tmp_path: Path) -> None:
    fill(tmp_path / "report", "old")
    (tmp_path / "report").rename(tmp_path / ".report.previous")
    with pytest.raises(RuntimeError), replaced(tmp_path / "report"):
        raise RuntimeError
    assert (tmp_path / "report" / "index.html").read_text() == "old"


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    fill(tmp_path / "report", "new")
    assert (tmp_path / "report" / "index.html").read_text() == "new"


@pytest.mark.parametrize("marker", [None, "", "[]", '{"made by": "somebody"}'])
def test_a_folder_that_is_no_report_is_left_alone(tmp_path: Path, marker: str | None) -> None:
    target = tmp_path / "precious"
    target.mkdir()
    (target / "index.html").write_text("mine")
    if marker is not None:
        (target / MARKER).write_text(marker)
    with pytest.raises(NotAReportError, match="precious is not empty and was not made by `ablate report`"):
        fill(target, "new")
    assert (target / "index.html").read_text() == "mine" and names(tmp_path) == ["precious"]


def test_files_that_a_person_put_into_a_report_are_not_lost(tmp_path: Path) -> None:
    fill(tmp_path / "report", "old")
    (tmp_path / "report" / "notes.txt").write_text("mine")
    with pytest.raises(NotAReportError, match=r"holds notes\.txt, which is no part of a report"):
        fill(tmp_path / "report", "new")
    assert (tmp_path / "report" / "notes.txt").read_text() == "mine"


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("mine")
    with pytest.raises(NotAReportError, match="is a file"):
        fill(tmp_path / "report", "new")
    assert (tmp_path / "report").read_text() == "mine"


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "report").symlink_to(tmp_path / "elsewhere")
    fill(tmp_path / "report", "new")
    assert (tmp_path / "report").is_symlink() and (tmp_path / "elsewhere" / "index.html").is_file()


def test_others_may_read_a_report_as_the_umask_says(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    fill(tmp_path / "report", "new")
    assert (tmp_path / "report").stat().st_mode == (tmp_path / "plain").stat().st_mode
