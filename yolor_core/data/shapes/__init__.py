"""The built-in synthetic dataset: shapes on clutter, in COCO's format, computed from (seed, index).

`appearance` says what an object can look like, `scene` where the objects of an image are, `render` draws the
pixels and `annotations` writes down what is visible. Nothing is downloaded and nothing is stored: image i of
a split depends on the seed and i only, not on how many images there are.
"""
