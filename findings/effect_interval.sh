#!/usr/bin/env bash
# pingouin's interval of a paired effect size: 95 % are about 100 % with few seeds, and it holds 0 where the paired test is clear.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check pingouin==0.7.0 scipy==1.17.1 statsmodels==0.15.0 pandas==3.1.1 \
  numpy==2.4.6
cd "$folder"
bin/python -W ignore - <<'PYTHON'
import math

import numpy
import pingouin
from scipy import stats

STUDIES = 400
generator = numpy.random.default_rng(0)


def interval(first, second):
    effect = pingouin.compute_effsize(first, second, paired=True, eftype="cohen")
    return effect, *pingouin.compute_esci(effect, nx=len(first), ny=len(second), paired=True, eftype="cohen", decimals=6)


for seeds in (3, 5, 10):
    for effect in (0, 1):
        covered = clear = zero = 0
        for _ in range(STUDIES):
            shared = math.sqrt(0.9) * generator.normal(size=seeds)  # what a seed does to both arms: correlation 0.9
            second, first = (shared + math.sqrt(0.1) * generator.normal(size=seeds) for _ in "21")
            first = first + effect
            _, low, high = interval(first, second)
            covered += low <= effect <= high
            if stats.ttest_rel(first, second).pvalue < 0.01:
                clear += 1
                zero += low <= 0 <= high
        print(f"{seeds} seeds, effect {effect}: intervals of 95 % cover {100 * covered / STUDIES:.1f} %; of {clear} studies with "
              f"p < 0.01, {zero} have 0 in the interval")
        assert covered / STUDIES > 0.98
        if effect and seeds == 5:
            assert clear > 100 and zero > clear / 2
first, second = [40.1, 40.9, 39.6, 40.4, 41.2], [39.7, 40.6, 39.3, 39.9, 40.9]  # AP by seed
effect, low, high = interval(first, second)
p = stats.ttest_rel(first, second).pvalue
print(f"better by 0.3 to 0.5 for each of five seeds: p = {p:.4f}, d = {effect:.2f} [{low:.2f}, {high:.2f}]")
assert p < 0.002 and low < -0.5
PYTHON
