"""The built-in synthetic dataset: shapes on clutter, in COCO's format, computed from (seed, index).

`scene` says what an object can look like and where the objects of an image are, `dataset` draws the pixels
and writes down what is visible. Nothing is downloaded and nothing is stored: image i of a split depends on
the seed and i only, not on how many images there are.
"""
