"""Profiles scale every experiment alike."""

from __future__ import annotations

import pytest

from ablations.experiments import CSP_FAST, P6_LIGHT, Experiment
from ablations.profiles import PROFILES, Profile, Scale, rescale
from ablations.registry import experiments, resolve
from yolor_core.config import leaves

TUNED = "p6-light.add-fa.mul-pr.finetuned"


def test_the_paper_profile_changes_nothing() -> None:
    for slug, experiment in experiments().items():
        assert resolve(slug, "paper") == experiment.science


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_never_changes_what_is_compared(profile: str) -> None:
    """Variant minus baseline is the same set of changed fields and values at every profile."""
    for slug in experiments():
        if slug == TUNED:
            continue  # its later phases are scaled; tested below
        base = slug.split(".")[0]
        assert difference(slug, base, profile) == difference(slug, base, "paper")


def difference(slug: str, base: str, profile: str) -> dict[str, object]:
    own, other = (dict(leaves(resolve(name, profile))) for name in (slug, base))
    return {name: own.get(name) for name in own.keys() | other.keys() if own.get(name) != other.get(name)}


@pytest.mark.parametrize("profile", PROFILES)
def test_later_phases_stay_in_proportion_and_end_with_their_schedule(profile: str) -> None:
    phases = resolve(TUNED, profile).train.phases
    first = phases[0].epochs
    assert phases[0].schedule_epochs == first
    for phase, paper in zip(phases[1:], (125, 25), strict=True):
        assert phase.epochs == max(1, round(paper * first / 300))
        assert phase.schedule_epochs == sum(p.epochs for p in phases)
    assert phases[:1] == resolve("p6-light.add-fa.mul-pr", profile).train.phases


@pytest.mark.parametrize(("profile", "larger"), [("smoke", 1), ("mini", 2), ("small", 1)])
@pytest.mark.parametrize("experiment", [CSP_FAST, P6_LIGHT], ids=lambda e: e.slug)
def test_anchors_shrink_with_the_image(experiment: Experiment, profile: str, larger: int) -> None:
    """The shapes of `mini` are twice as large in their image as COCO's objects, and its anchors too."""
    science = resolve(experiment, profile)
    assert science.model.anchor_scale == larger * science.train.size / experiment.science.train.size
    assert science.evaluation.size == science.train.size
    assert science.train.size % 32 == 0


def test_smoke_is_smaller_than_mini_in_every_way() -> None:
    smoke, mini = (resolve(TUNED, profile) for profile in ("smoke", "mini"))
    assert smoke.model.width < mini.model.width
    assert smoke.train.size < mini.train.size
    assert smoke.train.epochs < mini.train.epochs
    assert smoke.train.epochs == 3


def test_proxy_trains_the_full_model_on_a_quarter_of_the_images() -> None:
    science = resolve("csp-fast", "proxy")
    assert (science.model.width, science.model.depth, science.train.size) == (1.0, 1.0, 640)
    assert (science.train.keep_one_in, science.train.epochs) == (4, 30)
    assert science.train.batch * 4 == science.train.optimiser.nominal_batch


@pytest.mark.parametrize(("slug", "size"), [("csp-fast", 320), ("p6-light", 640), ("y4-p7", 768)])
def test_small_halves_width_and_pixels_and_keeps_the_papers_batch_and_rate(slug: str, size: int) -> None:
    science, paper = (resolve(slug, profile) for profile in ("small", "paper"))
    assert (science.model.width, science.model.depth) == (paper.model.width / 2, paper.model.depth)
    assert (science.train.size, science.evaluation.size) == (size, size)
    assert (science.train.keep_one_in, science.train.phases[0].epochs) == (4, 36)
    assert (science.train.batch, science.train.loss) == (paper.train.batch, paper.train.loss)
    changed = dict(science.train.optimiser) | {"ema_updates": 2000.0, "ema_decay": 0.9999}
    assert changed == dict(paper.train.optimiser)


def test_sizes_a_profile_does_not_list_follow_the_nearest_ratio() -> None:
    scale = Scale(sizes={640: 160, 1280: 192})
    assert [scale.size(pixels) for pixels in (640, 1280, 512, 1536, 64)] == [160, 192, 128, 256, 64]
    assert Scale().size(512) == 512


def test_rescaling_a_schedule_that_outlasts_its_phases_keeps_its_ratio() -> None:
    phase = CSP_FAST.science.train.phases[0].model_copy(update={"epochs": 100, "schedule_epochs": 300})
    assert rescale((phase,), 10, 100)[0].schedule_epochs == 30


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.name)
def test_only_the_papers_scale_goes_without_a_warning(profile: Profile) -> None:
    assert ("not comparable" in profile.caveat) == (profile.name != "paper")
