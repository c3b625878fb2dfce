"""`ablate speed` measures what it says, on the device it names, and invents nothing that it did not."""

from __future__ import annotations

import json
import time

import pytest
import torch
from click.testing import CliRunner, Result

from ablations.cli import main
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

CPU = torch.device("cpu")


def ablate(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


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
