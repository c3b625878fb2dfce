#!/usr/bin/env bash
# albumentations returns whole-number labels as floats of 24 bits: category 18 is 18.0, and the ids of COCO's crowds change.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check albumentations==2.0.8 numpy==2.2.6
cd "$folder"
bin/python -W ignore - <<'PYTHON'
import albumentations
import numpy

# Ids as in COCO's val2017: crowds are numbered from 900,000,000,000.
ids = [1768, 900100002299, 16777217]
picture = numpy.zeros((60, 100, 3), numpy.uint8)
boxes = [[10.0, 10.0, 20.0, 20.0], [30.0, 5.0, 20.5, 30.0], [60.0, 5.0, 20.0, 30.0]]
keep = albumentations.Compose(
    [albumentations.NoOp()], bbox_params=albumentations.BboxParams("coco", label_fields=["categories", "ids", "names"])
)
seen = keep(image=picture, bboxes=boxes, categories=[18, 3, 1], ids=ids, names=["dog", "car", "person"])
print("categories", seen["categories"], "names", seen["names"])
print("ids", [f"{value:.0f}" for value in seen["ids"]], "of", ids)
as_arrays = keep(image=picture, bboxes=numpy.array(boxes), categories=numpy.array([18, 3, 1]), ids=numpy.array(ids), names=["dog"] * 3)
print("from an array of int64:", as_arrays["ids"])
assert seen["names"] == ["dog", "car", "person"]
assert [type(value) for value in seen["categories"]] == [float] * 3 and seen["categories"] == [18, 3, 1]
assert [int(value) for value in seen["ids"]] == [int(numpy.float32(value)) for value in ids] != ids
assert seen["ids"][0] == ids[0] and seen["ids"][1] == 900099997696 and seen["ids"][2] == 16777216
PYTHON
