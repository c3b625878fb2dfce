#!/usr/bin/env bash
# Scores in half floats in a parquet file: fastparquet returns bytes, and pandas cannot filter them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check fastparquet==2026.9.0 duckdb==2.0.1 pyarrow==26.0.1 pandas==3.1.1 numpy==2.4.6
cd "$folder"
bin/python - <<'PYTHON'
import duckdb
import numpy
import pandas
import pyarrow
import pyarrow.compute
import pyarrow.parquet

scores = pyarrow.table({"score": numpy.array([0.1, 0.9], numpy.float16)})
pyarrow.parquet.write_table(scores, "detections.parquet")
read = pandas.read_parquet("detections.parquet", engine="fastparquet")
print("fastparquet:", read["score"].tolist())
print("duckdb:", duckdb.sql("select score from 'detections.parquet' where score > 0.5").fetchall())
try:
    pandas.read_parquet("detections.parquet", filters=[("score", ">", 0.5)])
    raised = ""
except pyarrow.ArrowNotImplementedError as error:
    raised = str(error)
print("pandas, filters=[('score', '>', 0.5)]:", raised)
try:
    pyarrow.compute.max(scores["score"])
    unable = ""
except pyarrow.ArrowNotImplementedError as error:
    unable = str(error)
print("pyarrow.compute.max:", unable)
assert read["score"].tolist() == [b"f.", b"3;"] and "halffloat" in raised and "halffloat" in unable
PYTHON
