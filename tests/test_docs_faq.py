"""docs/faq.md: its Python runs, its claims about weights hold, its options are accepted."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest
import torch

from ablations.overrides import parse_overrides
from ablations.profiles import PROFILES
from ablations.registry import all_experiments, resolve
from yolor_core.errors import WeightsError
from yolor_core.models import create_model, list_models
from yolor_core.weights import import_weights
from yolor_core.weights.exporting import authors_state

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
FOLDING, EXPORT = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_folding_leaves_nothing_of_the_knowledge_and_changes_no_output() -> None:
    space: dict[str, object] = {}
    exec(compile(FOLDING, "docs/faq.md", "exec"), space)
    assert {"folded", "expected"} <= set(space)  # it has come to its end


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A file as the authors write it, of a small model."""
    path = tmp_path / "theirs.pt"
    torch.save({"model": authors_state(create_model("yolor-ssss-s2d", seed=1))}, path)
    return path


@pytest.mark.slow
def test_a_folded_model_is_exported_without_the_layers_of_implicit_knowledge(
    theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(theirs.parent)
    exec(compile(EXPORT.replace("size=640", "size=64"), "docs/faq.md", "exec"), {})
    graph = onnx.load(theirs.parent / "folded.onnx").graph
    sizes = {tuple(constant.dims) for constant in graph.initializer}
    assert (255, 512, 1, 1) in sizes  # the predictor of P5
    assert not sizes & {(1, 255, 1, 1), (1, 512, 1, 1)}  # a vector that is multiplied or added


def test_weights_of_the_sister_with_another_stem_are_refused(theirs: Path) -> None:
    with pytest.raises(WeightsError, match="its shapes are those of yolor-ssss-s2d"):
        import_weights(theirs, "yolor-ssss-dwt")


def test_options_and_names_of_the_page_are_known() -> None:
    options = set(re.findall(r"--set (\S+=[\w.]+)", PAGE))
    assert len(options) > 4
    for option in options:
        assert parse_overrides([option])
        assert resolve("csp-fast", "paper", [option]) != resolve("csp-fast", "paper")
    assert set(re.findall(r"--profile (\w+)", PAGE)) <= PROFILES.keys()
    assert set(re.findall(r"--model ([\w-]+)", PAGE)) <= set(list_models())
    assert set(re.findall(r"ablate (?:train|show) (\S+)", PAGE)) <= all_experiments().keys()
