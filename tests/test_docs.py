"""The examples of docs/extending.md run: every Python block is put where its first line says."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import torch

from ablations.plan import plan_runs
from ablations.registry import select_tables
from yolor_core.config import ImplicitConfig, ModelConfig
from yolor_core.implicit import registry
from yolor_core.models import create_model, fold, implicit_values

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def extended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package with every example of the page added to the module it names."""
    for path, source in BLOCKS:
        if path == "mytable.py":
            continue
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        space = dict(vars(module))
        if module is registry:
            space |= {kind: Recorded(monkeypatch, space[kind]) for kind in ("FORMS", "OPERATORS", "SITES")}
        exec(compile(source, f"docs/extending.md: {path}", "exec"), space)
        for name in set(space) - set(vars(module)):
            monkeypatch.setattr(module, name, space[name], raising=False)


class Recorded(dict):  # type: ignore[type-arg]
    """Entries written here reach the registry and are taken back after the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, target: dict[str, object]) -> None:
        super().__init__(target)
        self.monkeypatch, self.target = monkeypatch, target

    def __setitem__(self, name: str, value: object) -> None:
        self.monkeypatch.setitem(self.target, name, value)


def test_every_python_block_says_where_it_belongs() -> None:
    assert len(BLOCKS) == PAGE.count("```python")
    assert [path for path, _ in BLOCKS].count("yolor_core/implicit/registry.py") == 3
    assert BLOCKS[-1][0] == "mytable.py"


@pytest.mark.usefixtures("extended")
@pytest.mark.parametrize(
    ("form", "operator", "site"),
    [
        ("cosine", "multiply", "fa"),
        ("vector", "gate", "pr"),
        ("vector", "add", "pr-obj"),
        ("cosine", "gate", "pr-obj"),
    ],
)
def test_the_examples_of_form_operator_and_site_train_and_fold(form: str, operator: str, site: str) -> None:
    part = ImplicitConfig(form=form, operator=operator, site=site, std=0.5)
    config = ModelConfig(architecture="yolov4_csp_fast", width=0.0625, depth=0.33, implicit=(part,))
    model = create_model(config, classes=2).double().train()
    plain = create_model(config.model_copy(update={"implicit": ()}), classes=2).double().train()
    images = torch.rand(2, 3, 64, 64).double()
    outputs = model(images)
    for raw, bare in zip(outputs, plain(images), strict=True):
        assert (raw - bare).abs().max() > 1e-3
    sum(raw.square().sum() for raw in outputs).backward()
    gradients = [parameter.grad for parameter in model.implicit.parameters()]
    assert gradients
    assert all(g is not None and g.abs().max() > 0 for g in gradients)
    assert {(v.form, v.operator, v.site) for v in implicit_values(model)} == {(form, operator, site)}
    model.eval()
    with torch.no_grad():
        for ours, raw in zip(fold(model)(images), model(images), strict=True):
            torch.testing.assert_close(ours, raw, rtol=1e-9, atol=1e-9)


def test_the_examples_leave_the_registry_as_it_was() -> None:
    known = {*registry.FORMS, *registry.OPERATORS, *registry.SITES}
    assert not known & {"cosine", "gate", "pr-obj"}


def test_the_example_of_a_table_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "mytable.py"
    path.write_text(BLOCKS[-1][1], encoding="utf-8")
    (table,) = select_tables([str(path)])
    assert table.name == "mine" and [row.label for row in table.rows] == ["baseline", "+ iFA", "+ iFA, σ 0.1"]
    planned = plan_runs([str(path)], "smoke", fingerprint="f")
    assert [run.config.experiment for run in planned] == [
        "csp-fast",
        "csp-fast.add-fa",
        "csp-fast.add-fa-wide",
    ]
    assert planned[1].run_id == plan_runs(["csp-fast.add-fa"], "smoke", fingerprint="f")[0].run_id
