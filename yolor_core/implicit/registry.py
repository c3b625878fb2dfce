"""What kinds of implicit knowledge exist. No torch here: configurations are validated against these names.

To add a form, an operator or a site: write its class or function and add one entry below.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Site:
    """Where a representation acts: before the predictor (on features) or after it (on predictions)."""

    symbol: str  # the paper's name
    function: str  # module:class, loaded when a model is built
    allows_concatenation: bool
    allows_chain: bool = False  # whether the Markov form may join its representations


FORMS: dict[str, str] = {
    "vector": "yolor_core.implicit.forms:Vector",  # eq. 6
    "network": "yolor_core.implicit.forms:Network",  # eq. 7
    "factorisation": "yolor_core.implicit.forms:Factorisation",  # eq. 8
    "markov": "yolor_core.implicit.markov:Markov",  # section 4.2
}

OPERATORS: dict[str, str] = {
    "add": "yolor_core.implicit.operators:Add",
    "multiply": "yolor_core.implicit.operators:Multiply",
    "concatenate": "yolor_core.implicit.operators:Concatenate",
}

SITES: dict[str, Site] = {
    "fa": Site("FA", "yolor_core.implicit.sites:FeatureAlignment", True, allows_chain=True),
    "pr": Site("PR", "yolor_core.implicit.sites:PredictionRefinement", False),
    "fa-cluster": Site("FA*", "yolor_core.implicit.sites:ClusterAlignment", True, allows_chain=True),
    "pr-wh": Site("PR*", "yolor_core.implicit.sites:SizeRefinement", False),
}
