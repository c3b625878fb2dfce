"""From detections to scores. `coco` and `detections` are free of torch; `postprocess` and `detect` use it."""
