"""docs/cluster.md: its profiles load, its launches plan, and its tables name what the code has."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ablations.cli import main
from ablations.overview import UNFINISHED
from ablations.plan import plan_runs
from slurm.cluster import Cluster, Override, known_clusters, load_cluster
from slurm.refusals import check_path
from slurm.tokens import claim
from tests.test_recipe_doc import tables
from yolor_core.runs import directory
from yolor_core.runs.directory import RunDirectory

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "cluster.md").read_text(encoding="utf-8")
PROFILES = dict(re.findall(r"^```toml\n# (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
NAME = re.compile(r"`([^`]+)`")


def rows_below(first: str) -> list[list[str]]:
    (rows,) = [rows for header, rows in tables(PAGE) if header[0] == first]
    return rows


def launches() -> list[str]:
    """Every `ablate launch` of the page onto a cluster: in blocks of shell, and in cells of tables."""
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    found = re.findall(r"^ablate launch [^#\n]*", blocks, re.MULTILINE)
    found += re.findall(r"`(ablate launch [^`]*)`", PAGE)
    return sorted({line.replace("--dry-run", "").strip() for line in found if "--cluster" in line})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's profiles and a COCO of one picture a split, in which commands are called."""
    for name, content in PROFILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    image = {"id": 1, "file_name": "1.jpg", "width": 64, "height": 64}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
    data = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "person"}]}
    for split in ("train2017", "val2017"):
        (tmp_path / "coco" / "annotations" / f"instances_{split}.json").write_text(json.dumps(data))
        (tmp_path / "coco" / split).mkdir()
        (tmp_path / "coco" / split / "1.jpg").write_bytes(b"a picture")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ABLATE_RESULTS", str(tmp_path / "results"))
    return tmp_path


def ablate(line: str) -> Result:
    return CliRunner().invoke(main, shlex.split(line)[1:])


def test_the_page_has_profiles_and_launches() -> None:
    assert [*PROFILES] == ["mycluster.toml", "paper.toml"]
    assert len(launches()) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("line", launches())
def test_every_launch_of_the_page_can_be_planned(line: str, here: Path) -> None:
    line = re.sub(r"--data \S+", f"--data {shlex.quote(str(here / 'coco'))}", line)
    done = ablate(f"{line.replace('--cluster PROFILE', '--cluster example')} --dry-run")
    assert done.exit_code == 0, done.output
    assert "hours: by FLOPs at" in done.output and "#!/bin/bash" in done.output
    assert not (here / "results").exists()


@pytest.mark.parametrize("name", known_clusters())
def test_the_profiles_of_the_suite_can_be_planned_with(name: str, here: Path) -> None:
    assert f"`{name}`" in PAGE
    done = ablate(f"ablate launch 1 --profile smoke --cluster {name} --dry-run")
    assert done.exit_code == 0, done.output


def test_the_head_of_the_script_is_as_printed(here: Path) -> None:
    (block,) = re.findall(r"^```\n(#SBATCH.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    done = ablate("ablate launch 1 --profile smoke --cluster mycluster.toml --dry-run")
    assert done.exit_code == 0, done.output
    lines = [line for line in done.output.splitlines() if line.startswith("#SBATCH")]
    assert set(block.splitlines()) <= set(lines)
    left_out = {line.split("=")[0].split()[1] for line in set(lines) - set(block.splitlines())}
    assert left_out == {"--job-name", "--kill-on-invalid-dep", "--open-mode", "--output"}


def test_an_override_of_the_page_is_for_the_experiments_it_names(here: Path) -> None:
    cluster = load_cluster("paper.toml")
    assert (cluster.resources("csp-fast").ranks, cluster.resources("p6-light").ranks) == (8, 16)


def test_every_key_is_documented_and_no_other() -> None:
    keys = [name for row in rows_below("key") for name in NAME.findall(row[0])]
    assert sorted(keys) == sorted(Cluster.model_fields.keys() - {"override"})
    (text,) = re.findall(r"`\[\[override\]\]` has (.*?)\.\n", PAGE, re.DOTALL)
    assert NAME.findall(text) == [*Override.model_fields]
    lines = {name for row in rows_below("if") for name in NAME.findall(row[1])}
    used = {re.split(r"\W", name.strip("["))[0] for name in lines}
    assert used and used <= Cluster.model_fields.keys()


def test_the_advice_covers_every_state_that_needs_some() -> None:
    told = {row[0].split(",")[0] for row in rows_below("`ablate status` says")}
    assert told == {"queued", "starting", "preempted", "unreadable", *UNFINISHED}


@pytest.mark.parametrize("sign", ["%", "\\", ":", '"', "'", "\t", "\n"])
def test_the_signs_that_a_path_must_not_have_are_refused(sign: str) -> None:
    with pytest.raises(Exception, match="choose another folder"):
        check_path(Path(f"/shared/a{sign}b"))


@pytest.mark.parametrize(("mask", "shared"), [(0o002, True), (0o022, False)])
def test_a_group_can_go_on_with_a_run_that_was_begun_with_its_umask(
    here: Path, mask: int, shared: bool
) -> None:
    run = RunDirectory(here / "results" / "runs" / "run")
    before = os.umask(mask)
    try:
        with run.lock():
            run.write_state("running", epochs=1)
            assert claim(run.path, 0) is not None
    finally:
        os.umask(before)
    for path in (run.path, run.path / "submits", run.path / ".lock", run.state):
        assert bool(path.stat().st_mode & 0o020) == shared, path
    assert (run.path / "submits" / "0001.json").stat().st_mode & 0o040, "is replaced, never written by others"


def test_a_lock_of_somebody_else_ends_a_launch(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (planned,) = plan_runs(["csp-fast"], "smoke", results=here / "results")
    run = RunDirectory(planned.run_dir)
    with run.lock():
        run.write_state("running", epochs=1)

    class Theirs:
        def __init__(self, path: Path, timeout: float) -> None:
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(directory, "FileLock", Theirs)
    done = ablate("ablate launch csp-fast --profile smoke --cluster example --dry-run")
    assert done.exit_code == 2
    assert ".lock: Permission denied" in done.output


def test_links_of_the_page_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)", PAGE)
    assert targets
    for target in targets:
        assert (DOCS / target).exists(), target
    headings = {
        re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", PAGE, re.M)
    }
    assert {*re.findall(r"\]\(#([^)]+)\)", PAGE)} <= headings
