"""`ablate weights`: from the authors' file to ours and out again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.ablations.trained import ablate, untrained
from yolor_core.models import create_model
from yolor_core.weights import export_weights

NAME = "yolor-ssss-s2d"
EXPERIMENT = "csp-fast.add-fa.mul-pr"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "theirs.pt"
    export_weights(create_model(NAME, seed=9), path, "authors")
    return path


def test_import_then_export_gives_the_same_file_content(theirs: Path, tmp_path: Path) -> None:
    ours, again = tmp_path / "new" / "ours.safetensors", tmp_path / "again.pt"
    result = ablate("weights", "import", theirs, "--model", NAME, "--out", ours)
    assert result.exit_code == 0 and "matched by name" in result.output and f"wrote {ours}" in result.output
    state = create_model(NAME, seed=9).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in load_file(ours).items())
    result = ablate("weights", "export", ours, "--model", NAME, "--format", "authors", "--out", again)
    assert result.exit_code == 0, result.output
    first, second = (torch.load(path, weights_only=True)["model"] for path in (theirs, again))
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_default_names_and_json(theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record = json.loads(ablate("weights", "import", theirs, "--model", NAME, "--json").output)
    assert record["out"] == f"{NAME}.safetensors" and record["classes"] == 80
    assert ablate("weights", "export", theirs, "--model", NAME, "--format", "safetensors").exit_code == 0
    assert os.listdir(tmp_path) == [f"{NAME}.safetensors"]


def test_error_is_one_line_and_leaves_no_file(theirs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    page = tmp_path / "page.pt"
    page.write_text("<html>sign in</html>")
    for arguments, message in (
        (("import", theirs, "--model", "yolor-p6", "--out", out), f"those of {NAME}"),
        (("import", theirs, "--model", "yolor", "--out", out), "unknown model"),
        (("import", page, "--model", NAME, "--out", out), "web page"),
        (("export", theirs, "--model", NAME, "--format", "darknet", "--out", out), "cfg flavour"),
        (
            ("export", theirs, "--model", NAME, "--format", "onnx", "--size", "33", "--out", out),
            "next: 64 x 64",
        ),
    ):
        result = ablate("weights", *arguments)
        assert result.exit_code == 2, result.output
        assert message in result.stderr and result.stderr.count("\n") == 1
        assert not out.exists()


def test_run_is_exported_and_its_file_imported_like_it(tmp_path: Path) -> None:
    run = untrained(tmp_path / "results", EXPERIMENT)
    state = load_file(run / "weights.safetensors")
    for kind, suffix in (("safetensors", "safetensors"), ("authors", "pt"), ("darknet", "weights")):
        out = tmp_path / f"out.{suffix}"
        done = ablate("weights", "export", "--run", run, "--format", kind, "--out", out)
        assert done.exit_code == 0, done.output
        for like in (run, EXPERIMENT):
            words = ("--like", like, "--profile", "smoke", "--out", tmp_path / "again")
            done = ablate("weights", "import", out, *words)
            assert done.exit_code == 0, done.output
            found = load_file(tmp_path / "again")
            assert all(torch.equal(found[n], v) for n, v in state.items() if not n.endswith("tracked"))
    done = ablate("weights", "export", "--run", run, "--format", "onnx", "--out", tmp_path / "m.onnx")
    assert done.exit_code == 0 and "onnxruntime differs from torch by" in done.output


def test_which_model_is_asked_for_once(theirs: Path, tmp_path: Path) -> None:
    for words, message in (
        (("import", theirs), "give either --model NAME or --like"),
        (("import", theirs, "--model", NAME, "--like", tmp_path), "give either --model NAME or --like"),
        (("import", theirs, "--like", tmp_path), "not a run directory"),
        (("import", theirs, "--like", "1"), "experiments; give one of them"),
        (("export", "--format", "onnx"), "FILE missing"),
        (("export", theirs, "--run", tmp_path, "--format", "onnx"), "leave FILE and other options out"),
    ):
        result = ablate("weights", *words)
        assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1
