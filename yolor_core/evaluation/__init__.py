"""From predictions to scores.

`coco`, `detections`, `classification` and `embedding` compute scores and are imported without torch.
`inference` runs a model over a split; `detect`, `classify` and `embed` gather what it says for their task,
and `predict` does so for all tasks of a model.
"""
