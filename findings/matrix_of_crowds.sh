#!/usr/bin/env bash
# hotcoco: a box on a crowd is no error for AP, TIDE, calibration and diagnostics, and a false positive in the confusion matrix.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check hotcoco==1.3.0 numpy==2.4.6
cd "$folder"
bin/python - <<'PYTHON'
import contextlib
import io
import json

import hotcoco

WIDTH, HEIGHT, PICTURES = 640, 480, 10
# A crowd of 100 x 100 pixels at (300, 200), in COCO's run lengths down the columns.
runs = [300 * HEIGHT + 200, *[100, HEIGHT - 100] * 99, 100]
runs.append(WIDTH * HEIGHT - sum(runs))
crowd = {"category_id": 1, "bbox": [300.0, 200, 100, 100], "area": 10000.0, "iscrowd": 1,
         "segmentation": {"size": [HEIGHT, WIDTH], "counts": runs}}
people = [[20.0 + 60 * n, 40, 40, 90] for n in range(4)]
in_crowd = [[302.0 + 24 * (n % 4), 202 + 33 * (n // 4), 20, 30] for n in range(12)]
images = [{"id": n, "file_name": f"{n}.jpg", "width": WIDTH, "height": HEIGHT} for n in range(1, PICTURES + 1)]
annotations = [
    {"id": 5 * i["id"] + n, "image_id": i["id"], **(
        {"category_id": 1, "bbox": people[n], "area": 3600.0, "iscrowd": 0} if n < 4 else crowd)}
    for i in images for n in range(5)
]
with open("truth.json", "w") as file:
    json.dump({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}, file)


def evaluated(boxes):
    """The evaluation of these (boxes, score) in each picture."""
    found = [{"image_id": i["id"], "category_id": 1, "bbox": box, "score": score}
             for i in images for some, score in boxes for box in some]
    truth = hotcoco.COCO("truth.json")
    evaluation = hotcoco.COCOeval(truth, truth.load_res(found), "bbox")
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.run()
    return evaluation


for name, boxes in (("people", [(people, 0.9)]), ("people and 12 boxes on the crowd", [(people, 0.9), (in_crowd, 0.95)])):
    evaluation = evaluated(boxes)
    ap, errors = 100 * evaluation.stats[0], evaluation.tide_errors()["counts"]
    counted = evaluation.calibration()["num_detections"]
    matrix = evaluation.confusion_matrix()["matrix"].tolist()
    print(f"{name}: AP {ap:.1f}, TIDE's errors {sum(errors.values())}, calibrated boxes {counted}, matrix {matrix}")
    statuses = evaluation.image_diagnostics()["dt_status"]
    print("  image_diagnostics:", *sorted(set(statuses.values())))
    assert set(statuses.values()) == {"tp"}
    assert round(ap, 1) == 100.0 and sum(errors.values()) == 0 and counted == 40
    assert matrix == [[40, 0], [0 if name == "people" else 120, 0]]
PYTHON
