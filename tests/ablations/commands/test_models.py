"""`ablate speed` measures what it says, on the device it names, and invents nothing that it did not.

`ablate weights`: from the authors' file to ours and out again.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.ablations.trained import ablate, untrained
from yolor_core.config import EvaluationConfig, ImplicitConfig, ModelConfig
from yolor_core.errors import InputError
from yolor_core.evaluation import speed
from yolor_core.evaluation.postprocess import select
from yolor_core.evaluation.speed import (
    confidence_for,
    measure_speed,
    median_seconds,
    prepare,
    sample_pictures,
    settle,
)
from yolor_core.models import Detector, create_model, decode
from yolor_core.weights import export_weights

CPU = torch.device("cpu")
NAME = "yolor-ssss-s2d"
EXPERIMENT = "csp-fast.add-fa.mul-pr"


def small() -> Detector:
    implicit = (ImplicitConfig(site="fa", operator="add"),)
    config = ModelConfig(architecture="yolov4_csp_fast", width=0.0625, depth=0.33, implicit=implicit)
    return settle(create_model(config))


def test_speed_reports_every_batch_folded_and_not_with_the_device() -> None:
    arguments = ["yolor-ssss-s2d", "--size", "128", "--seconds", "30", "--batch", "2", "--batch", "1"]
    patched = pytest.MonkeyPatch()
    patched.setattr(speed, "median_seconds", lambda call, seconds, device: (call(), (0.5, 3))[1])
    try:
        result = ablate("speed", *arguments, "--device", "cpu", "--json")
    finally:
        patched.undo()
    assert result.exit_code == 0, result.output
    records = json.loads(result.output)
    assert [(r["batch"], r["folded"]) for r in records] == [(1, False), (2, False), (1, True), (2, True)]
    for record in records:
        assert record["model"] == "yolor-ssss-s2d" and record["size"] == 128
        assert record["precision"] == "fp32" and record["repeats"] == 3 and record["note"] == ""
        assert record["images_per_second"] == record["end_to_end"] == record["batch"] / 0.5
        assert "thread" in record["device"]
        assert record["candidates"] == pytest.approx(speed.CANDIDATES, rel=0.05)


def test_a_batch_beyond_the_time_is_not_run_and_says_so() -> None:
    shown = ablate(
        "speed", "yolor-ssss-s2d", "--size", "64", "--seconds", "0.05", "--batch", "1", "--batch", "5000"
    )
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith("device: ")
    lines = [line for line in shown.output.splitlines() if " 5000 " in line]
    assert len(lines) == 2
    assert all("-            -  not run: about" in line and "limit is 0.05 s" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["yolor_p66"], "unknown model 'yolor_p66'; did you mean yolor_p6"),
        (["yolor_p6", "--size", "100"], "multiples of 64, the next valid size is 128 x 128"),
        (["yolor_p6", "--device", "warp"], "'warp'"),
    ],
)
def test_what_speed_cannot_measure_is_named(arguments: list[str], message: str) -> None:
    result = ablate("speed", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_half_precision_on_a_cpu_is_refused() -> None:
    with pytest.raises(InputError, match="fp16 on a CPU"):
        next(measure_speed(small(), 64, [1], CPU, ["fp16"], 0.1))


def test_measuring_leaves_the_model_as_it_was() -> None:
    model = small().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = list(measure_speed(model, 64, [1], CPU, ["fp32"], 0.01))
    assert [s.folded for s in found] == [False, True]
    assert all(s.model is not None and s.end_to_end is not None and s.repeats >= 1 for s in found)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_median_leaves_out_the_first_call() -> None:
    calls = []

    def call() -> None:
        calls.append(None)
        time.sleep(0.3 if len(calls) == 1 else 0.01)

    median, repeats = median_seconds(call, 0.1, CPU)
    assert repeats == len(calls) - 1 >= 2
    assert 0.01 <= median < 0.1
    assert median_seconds(lambda: time.sleep(0.02), 0.001, CPU)[1] == 1


def test_pictures_are_letterboxed_to_the_size_of_the_network() -> None:
    pictures = sample_pictures()
    images = prepare(pictures[:3], 96, small())
    assert images.shape == (3, 3, 96, 96)
    assert images.dtype == torch.float32
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert len({float(image.mean()) for image in images}) == 3


@torch.no_grad()
def test_the_confidence_lets_as_many_candidates_through_as_asked() -> None:
    model = small().eval()
    rows = decode(model(prepare(sample_pictures()[:1], 128, model)), model.strides, model.anchors)[0]
    for wanted in (1, 100, 3000):
        confidence = EvaluationConfig(size=128, confidence=confidence_for(rows, wanted)).confidence
        assert len(select(rows, confidence).scores) == wanted
    assert confidence_for(rows[:2], 10**6) == 0.0


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


def test_a_file_is_not_written_over_by_what_is_made_of_it(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / f"{NAME}.pt"
    own.write_bytes(theirs.read_bytes())
    result = ablate("weights", "export", own, "--model", NAME, "--format", "authors")
    assert result.exit_code == 2 and "choose another --out" in result.stderr
    ours = f"{NAME}.safetensors"
    assert ablate("weights", "import", own, "--model", NAME).exit_code == 0
    assert ablate("weights", "import", ours, "--model", NAME).exit_code == 2
    assert own.read_bytes() == theirs.read_bytes()


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
