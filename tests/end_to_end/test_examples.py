"""The examples of the documentation run: every Python block is put where its first line says."""

from __future__ import annotations

import importlib
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import yolor_core.tasks as task_registry
from ablations.experiments import ADD_FA, ADD_FA_MARKOV, CSP, Experiment
from ablations.plan import plan_runs
from ablations.registry import resolve
from yolor_core.config import BranchConfig, EvaluationConfig, ImplicitConfig, ModelConfig, ShapesConfig
from yolor_core.data import EvaluationBatches, load_images
from yolor_core.evaluation import predict
from yolor_core.implicit import registry
from yolor_core.models import create_model, fold, implicit_values
from yolor_core.tasks.base import build_losses


def page(name: str) -> tuple[str, list[tuple[str, str]]]:
    """The text of a page, and its blocks of Python as (file, source)."""
    text = (Path(__file__).parents[2] / "docs" / name).read_text(encoding="utf-8")
    return text, re.findall(r"^```python\n# (\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


PAGE, BLOCKS = page("extending.md")
TASKS_PAGE, TASKS_BLOCKS = page("tasks.md")


@pytest.fixture
def extended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package with every example of the page added to the module it names."""
    for path, source in BLOCKS:
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


@pytest.fixture
def keypoints(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The task that docs/tasks.md adds, registered; the module of its parts."""
    module = types.ModuleType("yolor_core.tasks.keypoints")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for path, source in TASKS_BLOCKS:
        if path == "yolor_core/tasks/keypoints.py":
            exec(compile(source, f"docs/tasks.md: {path}", "exec"), vars(module))
        elif path == "yolor_core/tasks/__init__.py":
            space = dict(vars(task_registry)) | {"TASKS": Recorded(monkeypatch, task_registry.TASKS)}
            exec(compile(source, f"docs/tasks.md: {path}", "exec"), space)
    return module


def test_every_python_block_of_the_tasks_says_where_it_belongs() -> None:
    assert len(TASKS_BLOCKS) == TASKS_PAGE.count("```python")
    assert [path for path, _ in TASKS_BLOCKS] == [
        "mytasks.py",
        *["yolor_core/tasks/keypoints.py"] * 3,
        "yolor_core/tasks/__init__.py",
    ]


def test_the_table_of_tasks_is_accepted_and_shares_the_papers_training(tmp_path: Path) -> None:
    path = tmp_path / "mytasks.py"
    path.write_text(TASKS_BLOCKS[0][1], encoding="utf-8")
    planned = plan_runs([str(path)], "smoke", fingerprint="f")
    slugs = ["csp.jde", "csp.fairmot", "csp.fairmot.implicit", "csp.jde.jdc"]
    assert [run.config.experiment for run in planned] == slugs
    assert planned[0].run_id == plan_runs(["csp.jde"], "smoke", fingerprint="f")[0].run_id
    assert planned[3].config.science.model.tasks == ("detection", "embedding", "classification")


@pytest.mark.usefixtures("keypoints")
@pytest.mark.parametrize("kind", ["joint", "with vectors", "with a chain", "alone"])
def test_the_example_of_a_task_trains_with_every_kind_of_knowledge(kind: str) -> None:
    branch = BranchConfig(task="keypoints")
    experiments: dict[str, Callable[[], Experiment]] = {
        "joint": lambda: CSP.joint(branch, "jdk"),
        "with vectors": lambda: CSP.joint_implicit(branch, ADD_FA, "jdk"),
        "with a chain": lambda: CSP.joint_implicit(branch, ADD_FA, "jdk", further=ADD_FA_MARKOV),
        "alone": lambda: CSP.alone(branch),
    }
    science = resolve(experiments[kind](), "smoke")
    model = create_model(science.model, classes=3).train()
    targets = torch.tensor([[0, 2, 0.5, 0.25, 0.3, 0.3, -1], [1, 0, 0.9, 0.9, 0.2, 0.2, 4.0]])
    losses = build_losses(model, science.train)
    outputs = model(torch.rand(2, 3, 64, 64))
    assert outputs["keypoints"].shape == (2, 3, 8, 8)
    terms = {}
    for task in model.tasks:
        terms |= losses[task](outputs[task], losses[task].wanted(targets, (64, 64), 2))
    assert ("loss/box" in terms) == (kind != "alone")
    torch.stack(list(terms.values())).sum().backward()
    gradients = [p.grad for part in (model.branches, model.backbone) for p in part.parameters()]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


def test_the_loss_of_the_example_is_the_same_in_one_piece_and_in_parts(keypoints: types.ModuleType) -> None:
    loss = keypoints.KeypointLoss(3, 8)
    targets = torch.tensor([[0, 2, 0.5, 0.25, 0.3, 0.3, -1], [1, 0, 0.99, 0.99, 0.2, 0.2, 4.0]])
    logits = torch.randn(2, 3, 4, 8, dtype=torch.float64)
    wanted = loss.wanted(targets.double(), (32, 64), 2)
    (whole,) = loss(logits, wanted).values()
    parts = [loss(logits[i : i + 1], wanted.part(i, i + 1))["loss/keypoint"] for i in range(2)]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-12, atol=0)
    truth = np.zeros((2, 3, 4, 8))
    truth[0, 2, 1, 4] = truth[1, 0, 3, 7] = 1
    p = 1 / (1 + np.exp(-logits.numpy()))
    expected = -(truth * np.log(p) + (1 - truth) * np.log(1 - p)).mean()
    assert float(whole) == pytest.approx(expected, rel=1e-12)


def test_the_metric_of_the_example_is_1_for_the_maps_that_the_loss_wants(keypoints: types.ModuleType) -> None:
    images = load_images(ShapesConfig(train_images=1, val_images=6, size=128), "val")
    (batch,) = EvaluationBatches(images, size=128, stride=32, batch=6, rectangular=True, pad=0.5)
    height, width = batch.images.shape[2:]
    rows = []
    for place, index in enumerate(batch.indices):
        boxes = images.boxes(index) * np.tile(batch.scales[place], 2) + np.tile(batch.pads[place], 2)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / [width, height]
        rows += [[place, label, x, y] for label, (x, y) in zip(images.classes(index), centres, strict=True)]
    truth = keypoints.KeypointLoss(5, 8).wanted(torch.tensor(rows), (height, width), 6).truth
    for maps, peak in ((truth, 1.0), (-truth, 0.0)):
        collector = keypoints.KeypointCollector(8, images)
        collector.add(batch, maps)
        parts = [collector.found()[:5], collector.found()[5:]]
        assert collector.score(collector.merge(parts), images) == {"keypoints": {"peak": peak}}
    assert keypoints.KeypointCollector.score([], images) == {"keypoints": {"peak": None}}


@pytest.mark.usefixtures("keypoints")
def test_the_example_of_a_task_is_evaluated_beside_detection() -> None:
    science = resolve(CSP.joint(BranchConfig(task="keypoints"), "jdk"), "smoke")
    images = load_images(ShapesConfig(train_images=1, val_images=3, size=64), "val")
    model = create_model(science.model, classes=len(images.names))
    config, device = EvaluationConfig(size=64), torch.device("cpu")
    scores = predict.evaluate(predict.predict(model, images, config, device), images)
    assert {"detection", "keypoints"} <= set(scores)
    assert 0 <= scores["keypoints"]["peak"] <= 1


def test_the_example_of_a_task_leaves_the_registry_as_it_was() -> None:
    assert "keypoints" not in task_registry.TASKS
