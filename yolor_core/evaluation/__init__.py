"""From predictions to scores.

`coco`, `detections` and `engine` compute detection's scores and are imported without torch. `predict` runs a
model over a split and scores what it says for each of its tasks (`yolor_core.tasks`).
"""
