"""Inputs that were once read wrongly, from what is typed to what is printed: one test for each folder."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest

from tests.ablations.trained import ablate


@pytest.fixture
def inputs(faults: Path, tmp_path: Path) -> Path:
    """A copy of all of them that commands may write into, with the relations between the folders kept."""
    copy = Path(shutil.copytree(faults, tmp_path / "faults", copy_function=shutil.copyfile))
    for folder in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
        folder.chmod(0o755)  # the originals may be read-only
    return copy


def test_classes_of_one_name_have_a_row_each(inputs: Path) -> None:
    folder = inputs / "07_compare_same_names"
    rows = {}
    for truth in ("two_same", "unique_names"):
        files = [folder / name for name in ("det.json", "det_no2.json")]
        arguments = ("--truth", folder / f"{truth}.json", "--resamples", "200", "--json")
        found = json.loads(ablate("compare", *files, *arguments).stdout)
        rows[truth] = {row["name"]: row for row in found["classes"]}
    same, unique = rows["two_same"], rows["unique_names"]
    assert (same["other (2)"]["a"], same["other (2)"]["b"]) == (pytest.approx(100), 0)
    assert (same["other (3)"]["a"], same["other (3)"]["b"]) == (pytest.approx(100), pytest.approx(100))
    for label, name in (("other (2)", "disc"), ("other (3)", "square")):
        assert same[label] == unique[name] | {"name": label}


def test_evaluate_matches_classes_by_name(inputs: Path) -> None:
    shutil.copytree(inputs / "02_stale_pack" / "coco", inputs / "coco")  # where run_bccd was trained
    folder, run = inputs / "03_evaluate_other_category_ids", inputs / "run_bccd"
    with contextlib.chdir(run):  # run.json names ../coco
        scores = [
            json.loads(ablate("evaluate", "--run", ".", "--json", *data).stdout)
            for data in ((), ("--data", folder / "perm"))
        ]
        refused = ablate("evaluate", "--run", ".", "--data", folder / "othernames")
    own, other = scores
    assert [round(100 * own["detection"]["AP"], 1), round(100 * own["per_class"]["WBC"], 1)] == [8.8, 16.2]
    assert other["per_class"] == own["per_class"]
    assert other["detection"] == pytest.approx(own["detection"])
    assert refused.exit_code == 2 and refused.stderr.count("\n") == 1
    assert "only here: cat, dog, car; only there: WBC, RBC, Platelets" in refused.stderr
