#!/usr/bin/env bash
# cleanlab looks for objects without a label and for wrong classes in files of boxes: an object whose box touches a
# labelled one is never found, however sure the model is of it, and with scores below 0.95 none is.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check cleanlab==2.9.0 scikit-learn==1.8.0 pandas==2.3.3 numpy==2.3.5
cd "$folder"
bin/python -W ignore - <<'PYTHON'
import contextlib
import io
from importlib.metadata import version

import numpy
from cleanlab.object_detection.filter import find_label_issues
from cleanlab.object_detection.rank import get_label_quality_scores

CLASSES, PICTURES = 3, 20
generator = numpy.random.default_rng(0)


def truth():
    """Five objects in a picture, none of which touches another: corners and classes."""
    at = numpy.array([[0.0, 0], [150, 0], [300, 0], [0, 150], [150, 150]]) + generator.uniform(0, 40, (5, 2))
    return numpy.hstack([at, at + generator.uniform(30, 90, (5, 2))]), numpy.array([0, 1, 2, 0, 1])


def found(boxes, classes, score):
    rows = numpy.hstack([boxes, numpy.full((len(boxes), 1), score)])
    answer = numpy.empty(CLASSES, dtype=object)
    for kind in range(CLASSES):
        answer[kind] = rows[classes == kind]
    return answer


pictures = [truth() for _ in range(PICTURES)]
# An object of its own class that overlaps the first by a tenth of its width, as in most photographs.
neighbours = []
for boxes, _ in pictures:
    x1, y1, x2, y2 = boxes[0]
    neighbours.append(numpy.array([[x2 - 0.1 * (x2 - x1), y1, x2 + 0.9 * (x2 - x1), y2]]))


def listed(score, damage):
    """Whether the damaged first picture is listed, and its quality. All predictions are right."""
    whole = [
        (numpy.vstack([boxes, near]), numpy.append(classes, 2))
        for (boxes, classes), near in zip(pictures, neighbours)
    ]
    predictions = [found(*picture, score) for picture in whole]
    labels = [{"bboxes": boxes.copy(), "labels": classes.copy()} for boxes, classes in whole]
    damage(labels[0])
    with contextlib.redirect_stdout(io.StringIO()):
        quality = get_label_quality_scores(labels, predictions, verbose=False)
        issues = find_label_issues(labels, predictions, return_indices_ranked_by_score=True)
    return [int(n) for n in issues] == [0], round(float(quality[0]), 2)


def without(index):
    def damage(label):
        for key in ("bboxes", "labels"):
            label[key] = numpy.delete(label[key], index, axis=0)
    return damage


def swapped(label):
    label["labels"][4] = 0


def moved(label):
    label["bboxes"][4] += 40


DAMAGES = {
    "no label, apart": without(4),
    "no label, touches another": without(5),
    "wrong class": swapped,
    "moved": moved,
}
seen = {}
for score in (0.999, 0.96, 0.94, 0.8):
    for name, damage in DAMAGES.items():
        seen[score, name] = listed(score, damage)
    print(f"score {score}:", {name: seen[score, name] for name in DAMAGES})
for (score, name), (is_listed, quality) in seen.items():
    misses = name == "no label, touches another" or (score < 0.95 and name != "moved")
    assert is_listed != misses and (not misses or quality > 0.9), (score, name)
print("cleanlab", version("cleanlab"))
PYTHON
