"""What kinds of implicit knowledge exist. No torch here: configurations are validated against these names.

To add a form, an operator or a site: write its class and add one entry below.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """One kind of a part: its class, and how tables write it."""

    place: str  # module:class
    symbol: str  # the paper's where it has one

    def load(self) -> Any:
        """The class, imported when a model is built."""
        module, _, name = self.place.partition(":")
        return getattr(importlib.import_module(module), name)


@dataclass(frozen=True)
class Form(Part):
    """What computes g(z). The symbol stands before that of the site, as in wiFA."""

    options: tuple[str, ...] = ()  # fields of ImplicitConfig that are this form's alone


@dataclass(frozen=True)
class Operator(Part):
    """What combines g(z) with a map."""

    slug: str  # in the names of experiments


@dataclass(frozen=True)
class Site(Part):
    """Where a representation acts: before the predictor (on features) or after it (on predictions)."""

    allows_concatenation: bool
    allows_chain: bool = False  # whether the Markov form may join its representations


FORMS: dict[str, Form] = {
    "vector": Form("yolor_core.implicit.forms:Vector", "i"),  # eq. 6
    "network": Form("yolor_core.implicit.forms:Network", "wi", options=("depth", "activation")),  # eq. 7
    "factorisation": Form(  # eq. 8
        "yolor_core.implicit.forms:Factorisation", "ic", options=("sparse", "nonnegative")
    ),
    "markov": Form("yolor_core.implicit.forms:Markov", "mi"),  # section 4.2, which names no symbol
}

OPERATORS: dict[str, Operator] = {
    "add": Operator("yolor_core.implicit.operators:Add", "+", slug="add"),
    "multiply": Operator("yolor_core.implicit.operators:Multiply", "×", slug="mul"),
    "concatenate": Operator("yolor_core.implicit.operators:Concatenate", "⊕", slug="cat"),
}

SITES: dict[str, Site] = {
    "fa": Site("yolor_core.implicit.sites:FeatureAlignment", "FA", True, allows_chain=True),
    "pr": Site("yolor_core.implicit.sites:PredictionRefinement", "PR", False),
    "fa-cluster": Site("yolor_core.implicit.sites:ClusterAlignment", "FA*", True, allows_chain=True),
    "pr-wh": Site("yolor_core.implicit.sites:SizeRefinement", "PR*", False),
}
