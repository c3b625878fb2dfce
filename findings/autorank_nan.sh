#!/usr/bin/env bash
# autorank with one NaN: its report rejects the null hypothesis "(p=nan)" and calls an arm significantly better that is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check autorank==1.3.0 scipy==1.17.1 statsmodels==0.15.0 pandas==3.1.1 \
  numpy==2.4.6
cd "$folder"
bin/python -W ignore - <<'PYTHON'
import contextlib
import io
import math

import autorank
import pandas


def judged(frame):
    """p, and the report's sentences that judge."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        result = autorank.autorank(frame, alpha=0.05, verbose=False)
        autorank.create_report(result)
    sentences = printed.getvalue().replace("\n", " ").split("Therefore, ")
    return float(result.pvalue), "reject the null hypothesis (p=nan) of the" in printed.getvalue(), sentences[-1]


arms = {"a": [40.1, 40.3, 40.2, 40.6, 40.4], "b": [40.2, 40.1, 40.4, 40.5, 40.45], "c": [40.3, 40.2, 40.1, 40.4, 40.6]}
for names in ("ab", "abc"):
    frame = pandas.DataFrame({name: arms[name] for name in names})  # AP by seed; no arm is better
    p, rejected, verdict = judged(frame)
    print(f"{len(names)} arms: p = {p:.3f}; {verdict}")
    assert p > 0.3 and not rejected and "no statistically significant difference" in verdict
    frame.iloc[2, 0] = math.nan
    p, rejected, verdict = judged(frame)
    print(f"{len(names)} arms, a NaN in the first: p = {p}; {verdict}")
    assert math.isnan(p) and rejected
    assert ("significantly larger" if names == "ab" else "there is a statistically significant difference") in verdict
PYTHON
