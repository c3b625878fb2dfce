"""What came out: reading runs, comparing them, and printing tables. Reads files only; never imports torch.

from analysis import open_study
study = open_study("results/published/mini", tables=[1, "controls"])
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.comparison import compare_runs
    from analysis.implicit import agreement, load_spectra
    from analysis.runs import (
        dataset,
        load_effects,
        load_features,
        load_implicit,
        load_metrics,
        load_runs,
        outputs_of,
    )
    from analysis.study import open_study

__all__ = [
    "agreement",
    "compare_runs",
    "dataset",
    "load_effects",
    "load_features",
    "load_implicit",
    "load_metrics",
    "load_runs",
    "load_spectra",
    "open_study",
    "outputs_of",
]
PLACES = {
    "agreement": "implicit",
    "compare_runs": "comparison",
    "load_spectra": "implicit",
    "open_study": "study",
}


def __getattr__(name: str) -> Any:
    """Loaded when they are first used: `ablate --help` must not wait for pandas."""
    if name in __all__:
        return getattr(importlib.import_module(f"analysis.{PLACES.get(name, 'runs')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
