"""Sites: where a representation acts on one pyramid level (paper figure 8, sections 5.2, 5.3 and 5.5).

A predictor is a 1x1 convolution from a feature map to anchors x (5 + classes) channels. Sites in front of it
map features to features, sites behind it predictions to predictions:

    y = PR( W . FA(x) + b )

Features travel as a tuple: one map shared by all anchors, or one map per anchor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from yolor_core.config import ImplicitConfig
from yolor_core.implicit.forms import Draws, Form
from yolor_core.implicit.operators import Operator
from yolor_core.implicit.registry import FORMS, OPERATORS, SITES

Maps = tuple[Tensor, ...]


class Site(nn.Module, ABC):
    """The representations of one level at one place, and how they act.

    channels: of the feature map that arrives (in front of the predictor) or leaves (behind it);
    anchors: per cell; outputs: numbers per anchor, 5 + classes; previous: the site with the representations
    that those of a chained form follow from, None for the first in the chain.
    """

    def __init__(
        self, channels: int, anchors: int, outputs: int, config: ImplicitConfig, previous: Site | None = None
    ) -> None:
        super().__init__()
        self.forms: nn.ModuleList
        self.config = config
        self.operator: Operator = OPERATORS[config.operator].load()()
        count, size = self.layout(channels, anchors, outputs)
        form = FORMS[config.form].load()
        shape = (size, self.operator.centre, config)
        if form.chained:
            before = [None] * count if previous is None else previous.forms.children()
            self.forms = nn.ModuleList(form(*shape, link) for link in before)
        else:
            self.forms = nn.ModuleList(form(*shape) for _ in range(count))
        self.added_channels = size if self.operator.widens else 0

    @staticmethod
    @abstractmethod
    def layout(channels: int, anchors: int, outputs: int) -> tuple[int, int]:
        """(how many representations, size of each)."""

    def values(self) -> Tensor:
        """Effective g(z) of all representations, one after the other, shape (count x size,)."""
        return torch.cat([form() for form in self.forms])

    def reset(self, draws: Draws) -> None:
        """Set every parameter to its initial value."""
        for index, form in enumerate(self.forms):
            assert isinstance(form, Form)
            form.reset(draws.within(f"forms.{index}"))


class FeatureSite(Site):
    """A site in front of the predictor, with one representation for all anchors or one for each."""

    def forward(self, maps: Maps, neutral: bool = False) -> Maps:
        """Maps (B, C, H, W), one or one per anchor -> maps (B, C + added_channels, H, W), likewise.

        neutral: with the value that changes nothing in place of every g(z).
        """
        g = [form() for form in self.forms]
        if neutral:
            g = [torch.full_like(values, self.operator.centre) for values in g]
        several = max(len(maps), len(g))
        maps = maps if len(maps) == several else maps * several
        g = g if len(g) == several else g * several
        return tuple(self.operator(x, values) for x, values in zip(maps, g, strict=True))

    def fold(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias of the predictor behind this site -> of both together (eq. 9), anchor by anchor.

        (anchors x outputs, C + added_channels, 1, 1) -> (anchors x outputs, C, 1, 1).
        """
        count = len(self.forms)
        parts = [
            self.operator.affine(form()).into_next(w, b)
            for form, w, b in zip(self.forms, weight.chunk(count), bias.chunk(count), strict=True)
        ]
        weights, biases = zip(*parts, strict=True)
        return torch.cat(weights), torch.cat(biases)


class PredictionSite(Site):
    """A site behind the predictor, with one representation."""

    def spread(self, g: Tensor) -> Tensor:
        """The representation -> one number for every predicted one, (anchors x outputs,)."""
        return g

    def forward(self, predictions: Tensor) -> Tensor:
        """(B, anchors x outputs, H, W) -> the same; channel a x outputs + k is number k of anchor a."""
        return self.operator(predictions, self.spread(self.forms[0]()))

    def fold(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias of the predictor in front of this site -> of both (eq. 10), same shapes."""
        return self.operator.affine(self.spread(self.forms[0]())).into_previous(weight, bias)


class FeatureAlignment(FeatureSite):
    """FA: one representation on the feature map of a level (section 5.2)."""

    @staticmethod
    def layout(channels: int, anchors: int, outputs: int) -> tuple[int, int]:
        """One of `channels` numbers."""
        return 1, channels


class ClusterAlignment(FeatureSite):
    """FA*: one representation per anchor cluster (section 5.5).

    Each anchor's slice of the predictor sees its own features (inferred from a trace in the released code).
    """

    @staticmethod
    def layout(channels: int, anchors: int, outputs: int) -> tuple[int, int]:
        """One of `channels` numbers for each anchor."""
        return anchors, channels


class PredictionRefinement(PredictionSite):
    """PR: one representation on all numbers a level predicts (section 5.3)."""

    @staticmethod
    def layout(channels: int, anchors: int, outputs: int) -> tuple[int, int]:
        """One of anchors x outputs numbers."""
        return 1, anchors * outputs


class SizeRefinement(PredictionSite):
    """PR*: a pair of numbers per anchor on the raw width and height (section 5.5, our interpretation)."""

    def __init__(self, channels: int, anchors: int, outputs: int, config: ImplicitConfig) -> None:
        super().__init__(channels, anchors, outputs, config)
        self.anchors, self.outputs = anchors, outputs

    @staticmethod
    def layout(channels: int, anchors: int, outputs: int) -> tuple[int, int]:
        """One of 2 x anchors numbers: width and height of each anchor in turn."""
        return 1, 2 * anchors

    def spread(self, g: Tensor) -> Tensor:
        """(2 x anchors,) -> (anchors x outputs,): channels other than w and h are left as they are."""
        pairs = g.view(self.anchors, 2)
        before = pairs.new_full((self.anchors, 2), self.operator.centre)
        after = pairs.new_full((self.anchors, self.outputs - 4), self.operator.centre)
        return torch.cat((before, pairs, after), dim=1).view(-1)


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

    def before(self, x: Tensor, level: str, without: Collection[Site] = ()) -> Maps:
        """What the predictor sees: (B, C, H, W) -> one map (B, C + added, H, W), or one per anchor.

        Sites in `without` have the value that changes nothing.
        """
        maps: Maps = (x,)
        for site in self.feature_sites(level):
            maps = site(maps, neutral=site in without)
        return maps

    def after(self, predictions: Tensor, level: str, without: Collection[Site] = ()) -> Tensor:
        """Refine predictions (B, anchors x outputs, H, W) by all sites but those in `without`."""
        for site in self.at(level):
            if isinstance(site, PredictionSite) and site not in without:
                predictions = site(predictions)
        return predictions
