#!/usr/bin/env bash
# Pairs of seeds for an effect of 13 standard deviations: NaN instead of 2, from pingouin without a word; for 10: 2.
# scipy's non-central t distribution is NaN at one degree of freedom there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check statsmodels==0.15.0 pingouin==0.7.0 scipy==1.17.1 numpy==2.4.6
cd "$folder"
bin/python - <<'PYTHON'
import math
import warnings

import pingouin
from scipy import stats
from statsmodels.stats.power import TTestPower


def exact(effect, runs):
    """Power of a paired t-test of `runs` pairs at 5 %, from the non-central t distribution."""
    limit, shift = stats.t.ppf(0.975, runs - 1), effect * math.sqrt(runs)
    return stats.nct.sf(limit, runs - 1, shift) + stats.nct.cdf(-limit, runs - 1, shift)


# The paired difference over its spread: 1 AP over 0.2 AP, and larger ones.
for effect in (5.0, 6.0, 10.0, 13.0):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        of_statsmodels = float(TTestPower().solve_power(effect_size=effect, power=0.8, alpha=0.05))
    with warnings.catch_warnings(record=True) as said_too:
        warnings.simplefilter("always")
        of_pingouin = float(pingouin.power_ttest(d=effect, power=0.8, contrast="paired"))
    print(f"effect {effect}: statsmodels {of_statsmodels:.2f} ({len(said)} warnings), "
          f"pingouin {of_pingouin:.2f} ({len(said_too)} warnings); power of 2 pairs {exact(effect, 2):.2f}, "
          f"of 3 {exact(effect, 3):.2f}")
    assert math.isnan(of_statsmodels) == (effect in (6, 13)) and exact(effect, 3) > 0.95
    assert math.isnan(of_pingouin) == (effect == 13) and math.isnan(exact(effect, 2)) == (effect in (6, 13))
    assert bool(said) == (effect in (6, 13)) and not said_too
PYTHON
