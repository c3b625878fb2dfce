#!/usr/bin/env bash
# A metric that first appears late in a log of JSON lines (AP after the last epoch only) is not read at all by polars.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check polars==2.1.0 duckdb==2.0.1 pyarrow==26.0.1
cd "$folder"
bin/python - <<'PYTHON'
import json
from pathlib import Path

import duckdb
import polars
import pyarrow
import pyarrow.json

epochs = [{"epoch": n, "loss": 1 / n} for n in range(1, 301)]
epochs[-1]["AP"] = 0.478
Path("metrics.jsonl").write_text("\n".join(map(json.dumps, epochs)))

columns = {
    "polars.read_ndjson": polars.read_ndjson("metrics.jsonl").columns,
    "polars.read_ndjson, infer_schema_length=None": polars.read_ndjson("metrics.jsonl", infer_schema_length=None).columns,
    "polars.DataFrame(list of dicts)": polars.DataFrame(epochs).columns,
    "pyarrow.Table.from_pylist": pyarrow.Table.from_pylist(epochs).column_names,
    "pyarrow.json.read_json": pyarrow.json.read_json("metrics.jsonl").column_names,
    "duckdb": duckdb.sql("select * from 'metrics.jsonl'").columns,
}
for reader, found in columns.items():
    print(f"{reader:46}", found)
lost = [reader for reader, found in columns.items() if "AP" not in found]
assert lost == ["polars.read_ndjson", "polars.DataFrame(list of dicts)", "pyarrow.Table.from_pylist"], lost
PYTHON
