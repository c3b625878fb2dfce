"""`ablate report` on the command line; `ablate tables` is tested in `tests/ablations/test_cli.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ablations.cli import main
from tests.analysis.report.conftest import few_figures, make_run

__all__ = ["few_figures"]  # a fixture

pytestmark = pytest.mark.usefixtures("few_figures")


def report(*words: str) -> Result:
    return CliRunner().invoke(main, ["report", *words])


def test_the_report_is_in_the_folder_of_results_and_its_page_is_named(tmp_path: Path) -> None:
    make_run(tmp_path, "csp-fast")
    result = report("1", "--results", str(tmp_path))
    index = tmp_path / "report" / "index.html"
    assert result.exit_code == 0, result.output
    assert index.is_file() and f"1 table, 2 figures, 1 run: {index}" in result.output.replace("\n", "")
    assert "a single seed" in result.stderr and "nothing to show in" in result.stderr
    assert report("1", "--results", str(tmp_path)).exit_code == 0  # again, in its place


def test_out_names_another_folder_and_what_is_there_is_not_touched(tmp_path: Path) -> None:
    make_run(tmp_path, "csp-fast")
    result = report("1", "--results", str(tmp_path), "--out", str(tmp_path / "a" / "b"))
    assert result.exit_code == 0 and (tmp_path / "a" / "b" / "index.html").is_file()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    result = report("1", "--results", str(tmp_path), "--out", str(mine))
    assert result.exit_code == 2 and "was not made by `ablate report`" in result.stderr
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("99",), "unknown table '99'"),
        (("--profile", "huge"), "unknown profile 'huge'"),
        (("--set", "train.nothing=1"), "train"),
        (("--out", ""), "--out is empty"),
        (("--seeds", "x"), "seeds"),
        (("--source", "abc"), "unknown source hash 'abc'"),
        ((), "there are no runs in"),
    ],
)
def test_bad_input_is_answered_by_a_line_that_names_it(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    result = report("1", "--results", str(tmp_path), *words)
    assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "report").exists()


def test_settings_choose_the_runs(tmp_path: Path) -> None:
    make_run(tmp_path, "csp-fast", overrides=("train.epochs=3",))
    result = report("1", "--results", str(tmp_path), "--set", "train.epochs=3", "--seeds", "1")
    assert result.exit_code == 0
    assert "train.epochs=3" in (tmp_path / "report" / "tables" / "table-1.html").read_text()


def test_the_log_of_a_submitted_run_is_that_of_its_job(tmp_path: Path) -> None:
    from slurm.tokens import claim

    folder = make_run(tmp_path, "csp-fast", log=b"printed on this machine\n")
    token = claim(folder, 0, name="ablate", gpus=1, hours=1.0, folder=str(tmp_path / "array"))
    assert token is not None
    token.update(job="77_3")
    (tmp_path / "array").mkdir()
    (tmp_path / "array" / "77_3_0_log.out").write_text("printed on the cluster\n")
    assert report("1", "--results", str(tmp_path)).exit_code == 0
    page = (tmp_path / "report" / "runs" / f"{folder.name}.html").read_text()
    assert "printed on the cluster" in page and "printed on this machine" not in page


def test_making_a_report_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom analysis.report import write_report\n"
        "from analysis.study import open_study\n"
        f"write_report(open_study({str(tmp_path)!r}, tables=['1']), Path({str(tmp_path / 'report')!r}))\n"
        "assert 'torch' not in sys.modules"
    )
    make_run(tmp_path, "csp-fast")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
