"""The table of models: every name builds, trains and means what the paper calls so."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch

from yolor_core.models import create_model, list_models, named_config
from yolor_core.models.architectures import ARCHITECTURES

MINI = {"width": 0.125, "depth": 0.33}


def uniform(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", list_models())
def test_every_model_gives_one_map_per_level_and_trains(name: str) -> None:
    config = named_config(name).model_copy(update=MINI)
    model = create_model(config, classes=2)
    architecture = ARCHITECTURES[name]
    side = architecture.strides[-1] * 2
    raw = model(uniform(2, 3, side, side // 2))
    na = architecture.anchors_per_level
    expected = [(2, na, side // s, side // 2 // s, 7) for s in model.strides]
    assert [tuple(y.shape) for y in raw] == expected
    assert model.anchors.tolist() == [[list(pair) for pair in level] for level in architecture.anchors]
    assert [type(s) for s in model.strides] == [int] * model.levels
    sum(y.square().mean() for y in raw).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_yolor_in_a_name_stands_for_the_implicit_knowledge_of_the_paper(name: str) -> None:
    parts = [(part.site, part.operator) for part in named_config(name).implicit]
    implicit = name.startswith("yolor") or name.endswith("-implicit")
    assert parts == ([("fa", "add"), ("pr", "multiply")] if implicit else [])


ZOO = """
    yolov4_csp yolov4_csp_fast yolov4_p6_light yolor_csp_fast yolor_csp yolor_csp_x yolor_p6 yolor_w6
    yolov4_csp_x yolov4_p6 yolov4_p7
    yolor-p6 yolor-w6 yolor-e6 yolor-d6 yolor-sss-dwt yolor-sss-s2d yolor-ssss-dwt yolor-ssss-s2d
    yolov4-p5 yolov4-p6 yolov4-p7 u5r5-s u5r5-s-implicit yolor-s
"""


def test_the_zoo_has_every_model_by_the_authors_name() -> None:
    from yolor_core import create_model, list_models

    assert set(ZOO.split()) <= set(list_models())
    assert create_model("yolor-ssss-dwt").architecture.name == "yolor-ssss-dwt"


def test_the_table_of_architectures_needs_no_torch() -> None:
    code = (
        "import sys; import yolor_core.models.architectures, yolor_core.config, yolor_core.models; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_of_the_package_is_there() -> None:
    from yolor_core import models

    for name in itertools.chain(*models._HOMES.values()):
        assert callable(getattr(models, name)), name
