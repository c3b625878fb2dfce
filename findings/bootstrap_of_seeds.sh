#!/usr/bin/env bash
# Bootstrap intervals of a mean of a few seeds: scipy's default (BCa) covers no more than plain percentiles, 73 % of 95 at three
# seeds, and is NaN where all seeds agree.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check scipy==1.17.1 numpy==2.4.6
cd "$folder"
bin/python -W ignore - <<'PYTHON'
import math

import numpy
from scipy import stats

STUDIES = 3000
generator = numpy.random.default_rng(1)
for seeds in (3, 5, 10, 20):
    differences = generator.normal(size=(STUDIES, seeds))  # of two arms by seed; there is no effect
    covered = {}
    for method in ("percentile", "BCa"):
        low, high = stats.bootstrap(
            (differences,), numpy.mean, axis=-1, method=method, n_resamples=999, rng=1, batch=50
        ).confidence_interval
        covered[method] = float(((low <= 0) & (high >= 0)).mean())
    half = stats.t.ppf(0.975, seeds - 1) * differences.std(axis=1, ddof=1) / math.sqrt(seeds)
    covered["t"] = float((abs(differences.mean(axis=1)) <= half).mean())
    print(f"{seeds} seeds, intervals of 95 % cover:", {name: f"{100 * part:.1f} %" for name, part in covered.items()})
    assert abs(covered["t"] - 0.95) < 0.015 and covered["BCa"] < covered["percentile"] + 0.01
    assert covered["BCa"] < {3: 0.75, 5: 0.86, 10: 0.92, 20: 0.94}[seeds]
agreed = stats.bootstrap((numpy.array([0.3, 0.3, 0.3]),), numpy.mean).confidence_interval
plain = stats.bootstrap((numpy.array([0.3, 0.3, 0.3]),), numpy.mean, method="percentile").confidence_interval
print("three equal differences: BCa", list(map(float, agreed)), "- percentile", list(map(float, plain)))
assert math.isnan(agreed.low) and abs(plain.low - 0.3) < 1e-9
PYTHON
