#!/usr/bin/env bash
# A run that diverged (AP is NaN) beside one without AP: polars names three different runs as the best of four.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check polars==2.1.0 pyarrow==26.0.1 pandas==3.1.1 numpy==2.4.6
cd "$folder"
bin/python - <<'PYTHON'
import pandas
import polars
import pyarrow
import pyarrow.parquet

nan = float("nan")
pyarrow.parquet.write_table(pyarrow.table({"run": ["a", "b", "c", "d"], "AP": [0.3, nan, 0.5, None]}), "runs.parquet")
lazy = polars.read_parquet("runs.parquet")
frame, arrow = pandas.read_parquet("runs.parquet"), pandas.read_parquet("runs.parquet", dtype_backend="pyarrow")
found = {
    "polars, run where AP is max": lazy.filter(polars.col("AP") == polars.col("AP").max())["run"][0],
    "polars, first of sort": lazy.sort("AP", descending=True)["run"][0],
    "polars, first of sort, nulls_last": lazy.sort("AP", descending=True, nulls_last=True)["run"][0],
    "polars, top_k(1)": lazy.top_k(1, by="AP")["run"][0],
    "polars, AP > 0.6": lazy.filter(polars.col("AP") > 0.6)["run"].to_list(),
    "pandas, first of sort": frame.sort_values("AP", ascending=False)["run"].iloc[0],
    "pandas, mean": str(round(frame["AP"].mean(), 2)),
    "pandas, mean (dtype_backend pyarrow)": str(arrow["AP"].mean()),
    "pandas, dropna (dtype_backend pyarrow)": len(arrow["AP"].dropna()),
}
for what, value in found.items():
    print(f"{what:40}", value)
assert list(found.values()) == ["c", "d", "b", "b", ["b"], "c", "0.4", "nan", 3], found
PYTHON
