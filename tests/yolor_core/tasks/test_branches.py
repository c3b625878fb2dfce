"""Branches in a detector: what is built for which tasks, what it computes, how it folds and is kept."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from yolor_core.config import (
    BranchConfig,
    EvaluationConfig,
    ImplicitConfig,
    ModelConfig,
    RunConfig,
    Science,
    ShapesConfig,
    TasksConfig,
    TrainConfig,
)
from yolor_core.errors import ConfigError, InputError, WeightsError
from yolor_core.implicit.registry import FORMS, OPERATORS
from yolor_core.models import (
    Detector,
    count,
    create_model,
    fold,
    implicit_values,
    parameter_groups,
    sparse_penalty,
)
from yolor_core.models.architectures import ARCHITECTURES
from yolor_core.runs.directory import RunDirectory, write_json
from yolor_core.tasks.base import build_losses
from yolor_core.weights import export_weights
from yolor_core.weights.importing import load_run

CLASSES, IDENTITIES = 3, 7
SUBSETS = [
    subset
    for size in (1, 2, 3)
    for subset in itertools.combinations(("detection", "classification", "embedding"), size)
]
TRAIN = TrainConfig(size=64, phases=({"epochs": 1, "schedule_epochs": 1},))  # type: ignore[arg-type]
LEARNT = TasksConfig(weighting="uncertainty")


def part(operator: str, form: str = "vector", **options: float) -> ImplicitConfig:
    return ImplicitConfig(site="fa", operator=operator, form=form, std=0.5, **options)


def config(
    tasks: tuple[str, ...],
    implicit: ImplicitConfig | None = None,
    architecture: str = "yolov4_csp_fast",
    variant: str = "jde",
) -> ModelConfig:
    """A narrow model with these tasks, with the same implicit knowledge in front of every predictor."""
    variants = {"embedding": variant}
    return ModelConfig(
        architecture=architecture,
        width=0.0625,
        depth=0.33,
        anchor_scale=0.15,  # so that the boxes below have cells on every level
        detection="detection" in tasks,
        implicit=(implicit,) if implicit and "detection" in tasks else (),
        branches=tuple(
            BranchConfig(task=task, implicit=implicit, variant=variants.get(task, "jde"))  # type: ignore[arg-type]
            for task in tasks
            if task != "detection"
        ),
    )


def built(wanted: ModelConfig, weighting: TasksConfig | None = None) -> Detector:
    return create_model(wanted, CLASSES, seed=1, identities=IDENTITIES, weighting=weighting)


def trained(wanted: ModelConfig) -> Detector:
    """In float64, in evaluation mode, with BatchNorms that do something."""
    model = built(wanted).double().eval()
    generator = torch.Generator().manual_seed(1)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            norm.running_mean.uniform_(-0.2, 0.2, generator=generator)
            norm.bias.data.uniform_(-0.3, 0.3, generator=generator)
    return model


def images(batch: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(batch, 3, 64, 128, generator=torch.Generator().manual_seed(5)).to(dtype)


def outputs(model: Detector, x: Tensor) -> dict[str, list[Tensor]]:
    """Every output, flat by task."""
    found = model(x)
    found = found if isinstance(found, dict) else {"detection": found}
    return {task: value if isinstance(value, list) else [value] for task, value in found.items()}


TARGETS = torch.tensor(
    [
        [0, 1, 0.4, 0.5, 0.2, 0.3, 4],
        [0, 2, 0.7, 0.2, 0.9, 0.8, -1],
        [1, 0, 0.1, 0.9, 0.1, 0.1, 0],
        [1, 0, 0.5, 0.5, 0.6, 0.7, 6],
    ]
)


@pytest.mark.parametrize("tasks", SUBSETS, ids="-".join)
@pytest.mark.parametrize("architecture", ["yolov4_csp_fast", "yolor-sss-dwt", "u5r5-s", "yolov4_p6_light"])
@pytest.mark.parametrize("weighting", ["fixed", "uncertainty"])
def test_every_parameter_of_every_set_of_tasks_gets_a_gradient(
    tasks: tuple[str, ...], architecture: str, weighting: str
) -> None:
    check_gradients(config(tasks, part("add"), architecture), tasks, weighting)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_gradient_reaches_every_form_and_operator_in_every_branch(form: str, operator: str) -> None:
    tasks = ("detection", "classification", "embedding")
    check_gradients(config(tasks, part(operator, form)), tasks, "fixed")


def check_gradients(wanted: ModelConfig, tasks: tuple[str, ...], weighting: str) -> None:
    model = built(wanted, TasksConfig(weighting=weighting))  # type: ignore[arg-type]
    assert model.tasks == tasks
    losses = build_losses(model, TRAIN)
    assert tuple(losses) == tasks
    found = model(images())
    found = found if isinstance(found, dict) else {"detection": found}
    assert tuple(found) == tasks
    terms = {}
    for task, loss in losses.items():
        values = loss(found[task], loss.wanted(TARGETS, (64, 128), 2))
        terms[task] = torch.stack(list(values.values())).sum()
    model.task.combine(terms).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    still = {n for n, p in model.named_parameters() if p.grad is not None and not p.grad.abs().any()}
    assert still == set()
    assert sum(n.startswith("task.") for n, _ in model.named_parameters()) == len(tasks) * (
        weighting == "uncertainty"
    )


@pytest.mark.parametrize("tasks", SUBSETS, ids="-".join)
def test_what_models_of_different_tasks_share_starts_with_the_same_values(tasks: tuple[str, ...]) -> None:
    everything = built(config(("detection", "classification", "embedding"), part("concatenate")))
    other = built(config(tasks, part("concatenate")))
    ours = everything.state_dict()
    for name, value in other.state_dict().items():
        assert torch.equal(value, ours[name]), name
    heads = {n.split(".")[0] for n in other.state_dict() if n.startswith(("head_", "predictor_"))}
    if tasks == ("embedding",):
        assert heads == set()
    elif "detection" not in tasks:
        assert heads == {"head_p5"}


def test_detection_alone_is_the_same_model_as_ever() -> None:
    plain = create_model(config(("detection",), part("add")), CLASSES, seed=1)
    joint = built(config(("detection", "embedding"), part("add")))
    x = images()
    for ours, expected in zip(joint(x)["detection"], plain(x), strict=True):
        assert torch.equal(ours, expected)
    assert not [n for n in plain.state_dict() if n.startswith(("branches", "task"))]


def test_outputs_have_the_promised_shapes() -> None:
    model = built(config(("detection", "classification", "embedding")))
    found = model(images())
    assert [tuple(y.shape) for y in found["detection"]] == [
        (2, 3, 64 // s, 128 // s, 8) for s in model.strides
    ]
    assert tuple(found["classification"].shape) == (2, CLASSES)
    assert [tuple(y.shape) for y in found["embedding"]] == [(2, 32, 64 // s, 128 // s) for s in model.strides]


@pytest.mark.parametrize(
    ("variant", "dimension", "width", "expected"),
    [("jde", 0, 1.0, 512), ("fairmot", 0, 1.0, 128), ("jde", 0, 0.125, 64), ("jde", 100, 0.5, 56)],
)
def test_dimension_of_the_embedding(variant: str, dimension: int, width: float, expected: int) -> None:
    branch = BranchConfig(task="embedding", variant=variant, dimension=dimension)  # type: ignore[arg-type]
    wanted = ModelConfig(
        architecture="yolov4_csp_fast", width=width, depth=0.33, detection=False, branches=(branch,)
    )
    with torch.device("meta"):
        model = Detector(ARCHITECTURES["yolov4_csp_fast"], wanted)
    assert model.branches["embedding"].dimension == expected


def operate(operator: str, x: Tensor, g: Tensor) -> Tensor:
    """The operator by its definition in the paper."""
    g = g.view(1, -1, 1, 1)
    if operator == "concatenate":
        return torch.cat((g.expand_as(x), x), dim=1)
    return x + g if operator == "add" else x * g


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("variant", ["jde", "fairmot"])
@torch.no_grad()
def test_branches_compute_what_their_definition_says(form: str, operator: str, variant: str) -> None:
    wanted = config(("detection", "classification", "embedding"), part(operator, form), variant=variant)
    model, x = trained(wanted), images(dtype=torch.float64)
    found, maps = model(x), model.maps(x)
    g = {(r.site, r.level): torch.from_numpy(r.values).double() for r in implicit_values(model)}

    head = model.branches["classification"]
    top = operate(operator, maps.head["P5"], g["classification", "P5"]).mean((2, 3))
    expected = top @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(found["classification"], expected, rtol=1e-5, atol=1e-5)

    for level, y in zip(model.level_names, found["embedding"], strict=True):
        predictor = model.branches["embedding"].predictors[level]
        moved = operate(operator, maps.neck[level], g["embedding", level])
        expected = F.conv2d(F.pad(moved, (1, 1, 1, 1)), predictor.conv.weight, predictor.conv.bias)
        if variant == "fairmot":
            last = predictor.project
            expected = torch.einsum("oc,bchw->bohw", last.weight[..., 0, 0], expected.clamp(min=0))
            expected = expected + last.bias.view(1, -1, 1, 1)
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


def test_what_enters_and_what_leaves_the_head_are_one_convolution_apart() -> None:
    model, x = trained(config(("detection", "embedding"))), images(dtype=torch.float64)
    maps = model.maps(x)
    for level in model.level_names:
        torch.testing.assert_close(model.part("head", level)(maps.neck[level]), maps.head[level])
    assert all(torch.equal(a, b) for a, b in zip(model.features(x), maps.head.values(), strict=True))


@pytest.mark.parametrize("variant", ["jde", "fairmot"])
def test_parameter_groups_of_branches(variant: str) -> None:
    model = built(config(("classification", "embedding"), part("add", "network"), variant=variant), LEARNT)
    groups = parameter_groups(model)
    names = {id(p): n for n, p in model.named_parameters()}
    found = {g: {names[id(p)] for p in members} for g, members in groups.items()}
    assert sum(map(len, found.values())) == len(names)
    assert {n for n in names.values() if ".implicit." in n or n.startswith("task.")} <= found["no_decay"]
    layers = [n for n in names.values() if n.startswith("branches.") and ".implicit." not in n]
    assert {n for n in layers if n.endswith("weight")} <= found["decay"]
    assert {n for n in layers if n.endswith("bias")} <= found["bias"]
    assert "branches.embedding.classifier.weight" in layers


@pytest.mark.parametrize("task", ["classification", "embedding"])
def test_layers_of_branches_start_as_pytorch_does_by_default(task: str) -> None:
    model = built(config((task,), variant="fairmot"))
    layers = [m for m in model.branches.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert layers
    for layer in layers:
        bound = layer.weight[0].numel() ** -0.5
        assert layer.bias is not None
        assert 0.5 * bound < layer.weight.abs().max() <= bound
        assert 0.3 * bound < layer.bias.abs().max() <= bound


@pytest.mark.parametrize("operator", OPERATORS)
def test_concatenation_leaves_the_features_part_of_a_branch_as_the_baselines(operator: str) -> None:
    tasks = ("classification", "embedding")
    plain, variant = (built(config(tasks, i)).state_dict() for i in (None, part(operator)))
    for name, expected in plain.items():
        found = variant[name]
        if found.shape != expected.shape:
            assert operator == "concatenate"
            assert found.shape[1] == 2 * expected.shape[1]
            found = found[:, expected.shape[1] :]
        assert torch.equal(found, expected), name


def test_implicit_values_and_penalty_cover_the_branches() -> None:
    sparse = ImplicitConfig(site="fa", operator="add", form="factorisation", sparse=0.5)
    tasks = ("detection", "classification", "embedding")
    model = built(config(tasks, sparse))
    levels = ("P3", "P4", "P5")
    found = [(r.site, r.level, r.form, len(r.values)) for r in implicit_values(model)]
    neck = [model.branches["embedding"].predictors[level].conv.in_channels for level in levels]
    head = model.backbone.channels
    assert found == [
        *(("fa", level, "factorisation", c) for level, c in zip(levels, head, strict=True)),
        ("classification", "P5", "factorisation", head[-1]),
        *(("embedding", level, "factorisation", c) for level, c in zip(levels, neck, strict=True)),
    ]
    penalty = sparse_penalty(model)
    expected = sum(p.abs().sum().item() for n, p in model.named_parameters() if n.endswith(".c"))
    assert penalty is not None
    assert penalty.item() == pytest.approx(0.5 * expected)


def test_counts_include_the_branches_and_leave_out_what_only_training_needs() -> None:
    base = ModelConfig(architecture="yolov4_csp_fast")

    def with_branch(task: str, implicit: ImplicitConfig | None = None) -> ModelConfig:
        return base.model_copy(update={"branches": (BranchConfig(task=task, implicit=implicit),)})

    plain, tags, names = (
        count(c, 640) for c in (base, with_branch("classification"), with_branch("embedding"))
    )
    assert tags.parameters - plain.parameters == 80 * 1025
    assert tags.flops - plain.flops == 2 * 80 * 1024
    channels, cells = (128, 256, 512), (80 * 80, 40 * 40, 20 * 20)
    assert names.parameters - plain.parameters == sum(512 * (9 * c + 1) for c in channels)
    assert names.flops - plain.flops == sum(
        2 * 512 * (9 * c + 1) * n for c, n in zip(channels, cells, strict=True)
    )
    assert names.flops_fused - plain.flops_fused == names.flops - plain.flops
    multiplied = count(with_branch("embedding", part("multiply")), 640)
    by_level = dict(
        zip(("P3", "P4", "P5"), (c * n for c, n in zip(channels, cells, strict=True)), strict=True)
    )
    assert multiplied.implicit_flops == by_level
    assert multiplied.flops - names.flops == sum(by_level.values())
    only = count(with_branch("embedding").model_copy(update={"detection": False}), 640)
    assert only.parameters < names.parameters
    linear = count(with_branch("classification", part("add", "network")), 640)
    assert linear.flops == tags.flops  # g(z) is computed once and costs nothing


@pytest.mark.parametrize("identities", [0, 1, 2])
def test_too_few_identities_are_named_with_the_reason(identities: int) -> None:
    with pytest.raises(ConfigError, match=rf"identities = {identities}: .*at least 3.*vanishes"):
        create_model(config(("embedding",)), CLASSES, identities=identities)
    assert create_model(config(("classification",)), CLASSES, identities=identities).tasks


def test_three_identities_are_enough() -> None:
    model = create_model(config(("embedding",)), CLASSES, identities=3)
    logits = model.branches["embedding"].identity_logits(torch.randn(4, 32))
    assert logits.shape == (4, 3)
    assert logits.std() > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"detection": False}, "leaves no task"),
        ({"branches": [{"task": "keypoints"}]}, "unknown task of a branch 'keypoints'; allowed"),
        ({"branches": [{"task": "detection"}]}, "unknown task of a branch 'detection'"),
        ({"branches": [{"task": "embedding"}] * 2}, "lists a task twice"),
        ({"branches": [{"task": "classification", "variant": "fairmot"}]}, "belong to task 'embedding'"),
        (
            {"branches": [{"task": "embedding", "implicit": {"site": "pr", "operator": "add"}}]},
            "in front of its predictor; allowed: fa",
        ),
        (
            {
                "detection": False,
                "implicit": [{"site": "fa", "operator": "add"}],
                "branches": [{"task": "embedding"}],
            },
            "put it in the branch",
        ),
    ],
    ids=str,
)
def test_configurations_that_make_no_sense_are_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelConfig.model_validate({"architecture": "yolov4_csp_fast", **wrong})
    unchecked = ModelConfig(architecture="yolov4_csp_fast").model_copy(update={"detection": False})
    with pytest.raises(ConfigError, match="leaves no task"):
        create_model(unchecked)


def test_images_are_checked_without_detection_too() -> None:
    model = built(config(("classification",))).eval()
    with pytest.raises(InputError, match="multiples of 32"):
        model(torch.rand(1, 3, 64, 65))
    with pytest.raises(InputError, match="one image of 32 x 32 pixels in training"):
        model.train()(torch.rand(1, 3, 32, 32))
    assert model(torch.rand(0, 3, 64, 64)).get("classification").shape == (0, CLASSES)


@pytest.mark.parametrize(
    ("tasks", "operator", "form"),
    [
        (tasks, operator, form)
        for tasks in SUBSETS[1:]
        for operator in (None, *OPERATORS)
        for form in ("network", "markov")
        if form != "markov" or (operator and "detection" in tasks)  # a chain starts at detection
    ],
)
@torch.no_grad()
def test_folded_branches_give_the_same_outputs(
    tasks: tuple[str, ...], operator: str | None, form: str
) -> None:
    wanted = config(tasks, part(operator, form) if operator else None)
    model, x = trained(wanted), images(dtype=torch.float64)
    expected, folded = outputs(model, x), fold(model)
    for once in (folded, fold(folded)):
        found = outputs(once, x)
        assert found.keys() == expected.keys()
        for task, values in expected.items():
            for ours, theirs in zip(found[task], values, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    left = {n.split(".sites")[0] for n, _ in folded.named_parameters() if ".sites." in n}
    stays = "embedding" in tasks and operator in ("add", "concatenate")
    assert left == ({"branches.embedding.implicit"} if stays else set())
    assert {(i.form, i.operator) for b in folded.config.branches if (i := b.implicit)} == (
        {("vector", operator)} if stays else set()
    )
    assert not [n for n, _ in folded.named_parameters() if "classifier" in n or n.startswith("task.")]
    assert "embedding" not in tasks or model.branches["embedding"].classifier is not None


def test_formats_without_branches_refuse_them_and_safetensors_keeps_them(tmp_path: Path) -> None:
    model = built(config(("detection", "embedding")))
    for format in ("onnx", "authors", "darknet"):
        with pytest.raises(WeightsError, match=r"detection alone.*detection, embedding.*safetensors"):
            export_weights(model, tmp_path / "w", format, size=64)
    assert not (tmp_path / "w").exists()
    export_weights(model, tmp_path / "w.safetensors", "safetensors")
    restored = create_model(model.config, CLASSES, seed=None, identities=IDENTITIES)
    restored.load_state_dict(load_file(tmp_path / "w.safetensors"))
    for task, values in outputs(model.eval(), images()).items():
        for ours, theirs in zip(outputs(restored.eval(), images())[task], values, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("tasks", SUBSETS, ids="-".join)
def test_a_run_of_any_tasks_is_loaded_with_its_classes_and_identities(
    tasks: tuple[str, ...], tmp_path: Path
) -> None:
    wanted = config(tasks, part("add", "markov" if "detection" in tasks else "vector"))
    model = built(wanted, LEARNT)
    science = Science(
        profile="mini",
        model=wanted,
        train=TRAIN.model_copy(update={"tasks": LEARNT}),
        evaluation=EvaluationConfig(size=64),
    )
    run = RunDirectory(tmp_path)
    settings = RunConfig(experiment="joint", science=science, data=ShapesConfig())
    write_json(run.run, {"config": settings.model_dump(mode="json")})
    save_file(model.state_dict(), run.weights)
    loaded, _ = load_run(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    if "embedding" in tasks:
        assert loaded.branches["embedding"].identities == IDENTITIES
    if tasks != ("embedding",):
        assert loaded.classes == CLASSES
