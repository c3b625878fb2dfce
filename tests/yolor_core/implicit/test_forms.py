"""Forms of g(z) by their equations, and chains of them over levels and tasks by their recurrence."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from yolor_core.config import BranchConfig, ImplicitConfig, ModelConfig
from yolor_core.implicit.forms import Draws, Factorisation, Form, Markov, Network, Vector
from yolor_core.implicit.registry import FORMS, OPERATORS
from yolor_core.models import Detector, create_model, implicit_priors, implicit_values


def alone(form: type[Form], size: int, centre: float, **options: Any) -> Any:
    name = {Vector: "vector", Network: "network", Factorisation: "factorisation"}[form]
    module = form(size, centre, ImplicitConfig(site="fa", operator="add", form=name, **options))
    module.reset(Draws(1))
    return module.double()


@torch.no_grad()
def test_forms_compute_equations_6_to_8() -> None:
    vector = alone(Vector, 5, 0.0)
    assert vector().tolist() == vector.z.tolist()

    network = alone(Network, 5, 1.0)
    assert network.z.numel() == 10
    weight, bias = network.layers[0].weight, network.layers[0].bias
    expected = [1 + bias[i] + sum(weight[i, j] * network.z[j] for j in range(10)) for i in range(5)]
    assert network().tolist() == pytest.approx([float(e) for e in expected])

    mixture = alone(Factorisation, 5, 0.0, prior_factor=3)
    assert mixture.z.shape == (15, 5)
    expected = [mixture.bias[0] + sum(mixture.c[k] * mixture.z[k, i] for k in range(15)) for i in range(5)]
    assert mixture().tolist() == pytest.approx([float(e) for e in expected])


@torch.no_grad()
def test_deep_network_applies_its_activation_between_layers_only() -> None:
    network = alone(Network, 4, 0.0, depth=2, activation="tanh")
    first, last = network.layers
    hidden = torch.tanh(first.weight @ network.z + first.bias)
    assert torch.allclose(network(), last.weight @ hidden + last.bias)
    assert last.weight.shape == (4, 8)


@torch.no_grad()
def test_nonnegative_factorisation_has_no_negative_part_and_starts_at_the_same_scale() -> None:
    mixture = alone(Factorisation, 64, 0.0, nonnegative=True)
    assert (mixture.atoms() >= 0).all()
    assert (mixture.coefficients() >= 0).all()
    plain = alone(Factorisation, 64, 0.0)
    assert torch.allclose(mixture.atoms(), plain.z.abs().clamp_min(1e-4), atol=1e-6)
    assert torch.allclose(mixture.coefficients(), plain.c.abs().clamp_min(1e-4), atol=1e-6)


def test_values_depend_on_the_name_alone() -> None:
    draws = Draws(3)
    first = draws.within("a").uniform("weight", (4, 3), 1.0)
    draws.normal("unrelated", (100,), 0.0, 1.0)
    assert torch.equal(Draws(3).uniform("a.weight", (4, 3), 1.0), first)
    assert not torch.equal(Draws(3).uniform("b.weight", (4, 3), 1.0), first)


CENTRE = {"add": 0.0, "multiply": 1.0, "concatenate": 0.0}


def part(operator: str, form: str = "markov", site: str = "fa", std: float = 0.02) -> ImplicitConfig:
    return ImplicitConfig(site=site, operator=operator, form=form, std=std)


def built(implicit: ImplicitConfig, *branches: BranchConfig, shaken: bool = True) -> Detector:
    """A small model; `shaken` puts random numbers into its chains, as training would."""
    config = ModelConfig(
        architecture="yolov4_csp_fast", width=0.0625, depth=0.33, implicit=(implicit,), branches=branches
    )
    model = create_model(config, classes=3, seed=1, identities=5).double()
    if shaken:
        generator = torch.Generator().manual_seed(4)
        for prior in implicit_priors(model).values():
            prior += 0.1 * torch.randn(prior.shape, generator=generator, dtype=torch.float64)
    return model


def recorded(model: Detector) -> dict[tuple[str, str], np.ndarray]:
    return {(r.site, r.level): r.values for r in implicit_values(model)}


def follow(model: Detector, prefix: str, before: np.ndarray, centres: tuple[float, float]) -> np.ndarray:
    """centre' + A (g - centre) + b, with A and b of the form at `prefix`."""
    priors = implicit_priors(model)
    a, b = priors[f"{prefix}.transition"].numpy(), priors[f"{prefix}.bias"].numpy()
    return np.asarray(centres[1] + a @ (before.astype(np.float64) - centres[0]) + b)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("site", ["fa", "fa-cluster"])
def test_each_level_follows_from_the_one_before(operator: str, site: str) -> None:
    model = built(part(operator, site=site))
    values, count = recorded(model), 1 if site == "fa" else 3
    centres = (CENTRE[operator],) * 2
    for before, level in itertools.pairwise(model.level_names):
        parts = zip(
            values[site, before].reshape(count, -1), values[site, level].reshape(count, -1), strict=True
        )
        for index, (first, second) in enumerate(parts):
            expected = follow(model, f"implicit.sites.{site}.{level}.forms.{index}", first, centres)
            np.testing.assert_allclose(second, expected, rtol=1e-5, atol=1e-5)


def test_only_the_first_level_has_a_free_vector_and_it_is_the_vector_forms_draw() -> None:
    chain = built(part("multiply"), shaken=False)
    plain = built(part("multiply", "vector"), shaken=False)
    shapes = {name: tuple(p.shape) for name, p in implicit_priors(chain).items()}
    c = chain.backbone.channels
    assert shapes == {
        "implicit.sites.fa.P3.forms.0.z": (c[0],),
        "implicit.sites.fa.P4.forms.0.transition": (c[1], c[0]),
        "implicit.sites.fa.P4.forms.0.bias": (c[1],),
        "implicit.sites.fa.P5.forms.0.transition": (c[2], c[1]),
        "implicit.sites.fa.P5.forms.0.bias": (c[2],),
    }
    np.testing.assert_array_equal(recorded(chain)["fa", "P3"], recorded(plain)["fa", "P3"])


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_chain_begins_with_copies(operator: str) -> None:
    values = recorded(built(part(operator), shaken=False))
    first = values["fa", "P3"]
    for level in ("P4", "P5"):
        np.testing.assert_allclose(
            values["fa", level], np.resize(first, values["fa", level].shape), rtol=1e-6
        )
    narrow = Markov(3, 0.0, part("add"), Markov(5, 0.0, part("add")))
    narrow.reset(None)  # type: ignore[arg-type]  # a later link draws nothing
    assert narrow.transition.tolist() == torch.eye(3, 5).tolist()


@pytest.mark.parametrize(("of_detection", "of_branch"), list(itertools.product(OPERATORS, OPERATORS)))
@pytest.mark.parametrize("form", FORMS)
def test_a_branch_follows_from_detection(of_detection: str, of_branch: str, form: str) -> None:
    branches = [BranchConfig(task=t, implicit=part(of_branch)) for t in ("embedding", "classification")]
    model = built(part(of_detection, form), *branches)
    values = recorded(model)
    centres = (CENTRE[of_detection], CENTRE[of_branch])
    for task, levels in (("embedding", model.level_names), ("classification", ("P5",))):
        for level in levels:
            prefix = f"branches.{task}.implicit.sites.fa.{level}.forms.0"
            expected = follow(model, prefix, values["fa", level], centres)
            np.testing.assert_allclose(values[task, level], expected, rtol=1e-4, atol=1e-4)
            assert f"{prefix}.z" not in implicit_priors(model)


def test_nothing_is_registered_twice() -> None:
    branch = BranchConfig(task="embedding", implicit=part("add"))
    model = built(part("add"), branch)
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert len(names) == len(set(names)) == len(list(model.parameters()))
    assert set(model.state_dict()) >= set(names)


def test_a_copy_has_a_chain_of_its_own() -> None:
    branch = BranchConfig(task="embedding", implicit=part("add"))
    model = built(part("add"), branch)
    before = recorded(model)
    average = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    for place, values in recorded(average).items():
        np.testing.assert_array_equal(values, before[place])
    assert np.abs(recorded(model)["embedding", "P5"] - before["embedding", "P5"]).min() > 0
    restored = built(part("add"), branch, shaken=False)
    restored.load_state_dict(average.state_dict())
    for place, values in recorded(restored).items():
        np.testing.assert_array_equal(values, before[place])


def test_a_later_level_teaches_the_first_one() -> None:
    model = built(part("add"))
    (_, _, last) = model(torch.rand(2, 3, 64, 64, dtype=torch.float64))
    found: list[Tensor | None] = list(
        torch.autograd.grad(last.square().sum(), [model.get_parameter("implicit.sites.fa.P3.forms.0.z")])
    )
    assert found[0] is not None and found[0].abs().min() > 0


@pytest.mark.parametrize("site", ["pr", "pr-wh"])
def test_a_chain_behind_the_predictor_is_refused(site: str) -> None:
    with pytest.raises(ValidationError, match=f"form 'markov' at site '{site}'.*fa, fa-cluster"):
        part("add", site=site)


@pytest.mark.parametrize(
    "implicit", [(), (part("add", "vector", "fa-cluster"),), (part("add", "vector", "pr"),)]
)
def test_a_branch_cannot_go_on_from_nothing(implicit: tuple[ImplicitConfig, ...]) -> None:
    branch = BranchConfig(task="classification", implicit=part("add"))
    with pytest.raises(ValidationError, match="goes on from detection's representation at site fa"):
        ModelConfig(architecture="yolov4_csp_fast", implicit=implicit, branches=(branch,))
