#!/usr/bin/env bash
# W&B: one NaN in a run, and its best AP, least loss and mean loss are NaN for good, whatever is logged later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check wandb==0.31.0
cd "$folder"
WANDB_MODE=offline WANDB_SILENT=true WANDB_DISABLE_GIT=true bin/python - <<'PYTHON'
import math

import wandb

NAN = float("nan")
RUNS = {
    "whole": [(0.1, 2.0), (0.3, 1.0), (0.5, 0.5), (0.4, 0.6)],
    "one NaN, then better": [(0.1, 2.0), (NAN, NAN), (0.5, 0.5), (0.4, 0.6)],
    "NaN first": [(NAN, NAN), (0.3, 1.0), (0.5, 0.5), (0.4, 0.6)],
    "one loss infinite": [(0.1, 2.0), (0.3, math.inf), (0.5, 0.5), (0.4, 0.6)],
}
seen = {}
for name, epochs in RUNS.items():
    with wandb.init(project="detector", dir=".") as run:
        run.define_metric("AP", summary="max")
        run.define_metric("loss", summary="min,mean,last")
        for ap, loss in epochs:
            run.log({"AP": ap, "loss": loss})
        seen[name] = {"AP": dict(run.summary["AP"]), "loss": dict(run.summary["loss"])}
    print(f"{name}: {seen[name]}")
assert seen["whole"]["AP"]["max"] == 0.5 and seen["whole"]["loss"]["min"] == 0.5
for name in ("one NaN, then better", "NaN first"):
    assert math.isnan(seen[name]["AP"]["max"]) and math.isnan(seen[name]["loss"]["min"]) and math.isnan(seen[name]["loss"]["mean"])
    assert seen[name]["loss"]["last"] == 0.6
assert seen["one loss infinite"]["AP"]["max"] == 0.5 and seen["one loss infinite"]["loss"]["min"] == 0.5
print("wandb", wandb.__version__)
PYTHON
