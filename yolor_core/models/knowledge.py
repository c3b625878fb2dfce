"""The implicit knowledge of a whole detector: its sites on every level, and reading it out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from yolor_core.config import ImplicitConfig
from yolor_core.implicit.forms import Form
from yolor_core.implicit.registry import FORMS, SITES
from yolor_core.implicit.sites import FeatureSite, Maps, PredictionSite, Site


class ImplicitKnowledge(nn.Module):
    """Every implicit representation of a task, registered site by site, then level by level.

    Sites in front of the predictor act in the order of the configuration, then those behind it likewise.
    A chained form (section 4.2's Markov chain) runs over the levels, the finest first; where `previous`
    holds another task's sites by level, it goes on from the one of the same level instead.

    Args:
        channels: of the map in front of each level's predictor.
        outputs: numbers that an anchor predicts.
        task: whose knowledge it is, named instead of the site in `implicit_values`; None for detection.
    """

    def __init__(
        self,
        configs: Sequence[ImplicitConfig],
        level_names: Sequence[str],
        channels: Sequence[int],
        anchors: int,
        outputs: int,
        task: str | None = None,
        previous: Mapping[str, Site] | None = None,
    ) -> None:
        super().__init__()
        self.task = task
        self.sites = nn.ModuleDict()
        self.level_names = tuple(level_names)
        self.added = [0] * len(channels)  # channels that concatenation puts in front of each level's features
        for config in configs:
            levels = nn.ModuleDict()
            chained = FORMS[config.form].load().chained
            before: Site | None = None
            for index, name in enumerate(level_names):
                before = before if previous is None else previous.get(name)
                site = SITES[config.site].load()(
                    channels[index] + self.added[index],
                    anchors,
                    outputs,
                    config,
                    *((before,) if chained and before is not None else ()),
                )
                if config.learning == "frozen":
                    site.requires_grad_(False)
                before = site
                self.added[index] += site.added_channels
                levels[name] = site
            self.sites[config.site] = levels

    def walk(self) -> Iterator[tuple[str, str, Site]]:
        """(site name, level name, module), in registration order."""
        for site_name, levels in self.sites.items():
            for level_name, site in cast(nn.ModuleDict, levels).items():
                yield site_name, level_name, cast(Site, site)

    def of(self, site: str) -> dict[str, Site]:
        """Level name -> module of a site; empty where the site is not configured."""
        return {level: module for name, level, module in self.walk() if name == site}

    def at(self, level: str) -> list[Site]:
        """The sites of a level, in the order of the configuration."""
        return [site for _, name, site in self.walk() if name == level]

    def feature_sites(self, level: str) -> list[FeatureSite]:
        """Those of a level in front of the predictor."""
        return [site for site in self.at(level) if isinstance(site, FeatureSite)]

    def before(self, x: Tensor, level: str) -> Maps:
        """What the predictor sees: (B, C, H, W) -> one map (B, C + added, H, W), or one per anchor."""
        maps: Maps = (x,)
        for site in self.feature_sites(level):
            maps = site(maps)
        return maps

    def after(self, predictions: Tensor, level: str) -> Tensor:
        """Refine predictions (B, anchors x outputs, H, W)."""
        for site in self.at(level):
            if isinstance(site, PredictionSite):
                predictions = site(predictions)
        return predictions


@dataclass(frozen=True)
class ImplicitValues:
    """The effective representation g(z) of one site on one level."""

    site: str  # where detection has it, or the name of another task
    level: str
    form: str
    operator: str
    values: np.ndarray  # float32, one-dimensional


@torch.no_grad()
def implicit_values(model: nn.Module) -> list[ImplicitValues]:
    """g(z) of every site and level, as it acts now. Empty for a model without implicit knowledge.

    At FA* the anchors' representations follow one another; at PR* the values are w, h of each anchor.
    """
    records = []
    for knowledge in model.modules():
        if isinstance(knowledge, ImplicitKnowledge):
            for site_name, level, site in knowledge.walk():
                values = site.values().float().cpu().numpy()
                config = site.config
                place = knowledge.task or site_name
                records.append(ImplicitValues(place, level, config.form, config.operator, values))
    return records


def implicit_priors(model: nn.Module) -> dict[str, Tensor]:
    """Name -> raw trained tensor (z, W, Z, c ...) of every implicit representation, detached."""
    return {
        f"{prefix}.{name}": parameter.detach()
        for prefix, module in model.named_modules()
        if isinstance(module, ImplicitKnowledge)
        for name, parameter in module.named_parameters()
    }


def sparse_penalty(model: nn.Module) -> Tensor | None:
    """Sum of the forms' penalties (weight x |c|_1), a scalar with gradient, or None where there is none."""
    terms = [form.penalty() for form in model.modules() if isinstance(form, Form)]
    found = [term for term in terms if term is not None]
    return torch.stack(found).sum() if found else None
