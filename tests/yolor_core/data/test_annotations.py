"""What happens to annotation files that are not as they should be."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from tests.yolor_core.data.coco_folder import Edit, Folder, annotation, picture
from yolor_core.data import check_dataset, load_images
from yolor_core.data.annotations import check_same_classes, class_labels
from yolor_core.data.check import sound
