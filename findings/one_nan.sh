#!/usr/bin/env bash
# One NaN in one arm: scipy.stats.dunnett gives p = 1 for every arm, statsmodels Tukey reject = False for every pair.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check scipy==1.17.1 statsmodels==0.15.0 pandas==3.1.1 numpy==2.4.6
cd "$folder"
bin/python - <<'PYTHON'
import numpy
from scipy import stats
from statsmodels.stats.multicomp import pairwise_tukeyhsd

rng = numpy.random.default_rng(0)
control, *arms = (40 + gain + rng.normal(0, 0.2, 5) for gain in (0.0, 0.0, 2.0, 4.0))
before = stats.dunnett(*arms, control=control).pvalue
diverged = [arms[0].copy(), *arms[1:]]
diverged[0][2] = numpy.nan
after = stats.dunnett(*diverged, control=control).pvalue
without = stats.dunnett(arms[0][[0, 1, 3, 4]], *arms[1:], control=control).pvalue
print("dunnett:", before.round(5), "- with a NaN in the first arm", after, "- without that run", without.round(5))
names = numpy.repeat(["control", "a", "b", "c"], 5)
tukey = pairwise_tukeyhsd(numpy.concatenate([control, *diverged]), names)
whole = pairwise_tukeyhsd(numpy.concatenate([control, *arms]), names)
print("Tukey, rejected:", whole.reject, "- with the NaN", tukey.reject, tukey.pvalues)
assert (before[1:] < 1e-6).all() and (without[1:] < 1e-6).all() and (after == 1).all()
assert whole.reject.sum() == 5 and not tukey.reject.any() and numpy.isnan(tukey.pvalues).all()
PYTHON
