#!/usr/bin/env bash
# One NaN among five seeds: scipy's permutation tests give p = 0 whatever the alternative, where 1 / 32 is the least there is.
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

baseline = numpy.array([40.1, 40.3, 40.2, 40.6, 40.4])
arm = baseline + numpy.array([0.1, -0.2, 0.2, -0.1, 0.05])  # no effect
diverged = arm.copy()
diverged[2] = math.nan


def difference(x, y, axis):
    return numpy.mean(x - y, axis=axis)


for kind in ("samples", "independent"):  # paired by seed, or not
    for alternative in ("two-sided", "less", "greater"):
        p = [float(stats.permutation_test((runs, baseline), difference, permutation_type=kind, alternative=alternative).pvalue)
             for runs in (arm, diverged)]
        print(f"{kind}, {alternative}: p = {p[0]:.3f}, with a NaN {p[1]}")
        assert p[0] > 0.2 and p[1] == 0
related = [stats.pearsonr(runs, baseline, method=stats.PermutationMethod()).pvalue for runs in (arm[::-1], diverged[::-1])]
print("pearsonr by permutations: p =", [round(float(p), 3) for p in related], "- ttest_ind by permutations with the NaN: p =",
      float(stats.ttest_ind(diverged, baseline, method=stats.PermutationMethod()).pvalue))
assert related[0] > 0.05 and related[1] == 0
assert math.isnan(stats.ttest_ind(diverged, baseline, method=stats.PermutationMethod()).pvalue)
PYTHON
