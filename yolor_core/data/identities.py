"""Which boxes show the same individual: what embeddings are trained and scored by.

COCO knows no identities. An annotation file may have them, as the field `identity` of its annotations; for
one that has none the category stands in (ours), so that boxes of a category count as one individual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

NONE = -1

Source = Literal["identity", "category"]


@dataclass(frozen=True)
class Identities:
    """The identities of the boxes of a split.

    source: where they come from; values: the field's values, or the classes, that occur, int64 (count,),
    rising; index: int64 (m,), for each box the place of its value in `values`, NONE for a box without.
    """

    source: Source
    values: NDArray[np.int64]
    index: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Different identities."""
        return len(self.values)

    @property
    def once(self) -> int:
        """Identities of a single box, which can be learnt from but not found again."""
        return int((np.bincount(self.index[self.index != NONE], minlength=self.count) == 1).sum())

    @property
    def without(self) -> int:
        """Boxes without an identity."""
        return int((self.index == NONE).sum())


def identify(fields: NDArray[np.int64], classes: NDArray[np.int64]) -> Identities:
    """Identities of boxes: by the values of their field (m,), or by their classes (m,) where all are NONE."""
    source: Source = "identity" if (fields != NONE).any() else "category"
    values, index = np.unique(fields if source == "identity" else classes, return_inverse=True)
    index = index.reshape(-1).astype(np.int64)
    if len(values) and values[0] == NONE:  # no other value is smaller
        values, index = values[1:], index - 1
    return Identities(source, values.astype(np.int64), index)
