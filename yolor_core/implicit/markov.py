"""The Markov form of section 4.2: representations of several levels or tasks that follow from one another."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from yolor_core.config import ImplicitConfig
from yolor_core.implicit.draws import Draws
from yolor_core.implicit.forms import Form


class Markov(Form):
    """A link of the chain z_{t+1} = A z_t + b with a learnt A; the first link is a free vector.

    z is what g differs by from the value that changes nothing, g = centre + z, so that operators with
    different centres may share a chain. A is (size, size of the link before), because levels differ in width.

    Args:
        previous: the representation that this one follows from, of any form; None for the first link.
    """

    chained: ClassVar[bool] = True

    def __init__(
        self, size: int, centre: float, config: ImplicitConfig, previous: Form | None = None
    ) -> None:
        super().__init__(size, centre, config)
        # In a tuple, or torch would register what belongs to another site a second time.
        self._previous = (previous,)
        if previous is None:
            self.z = nn.Parameter(torch.empty(size))
        else:
            self.transition = nn.Parameter(torch.empty(size, previous.size))
            self.bias = nn.Parameter(torch.empty(size))

    def forward(self) -> Tensor:
        """g(z), shape (size,)."""
        (previous,) = self._previous
        if previous is None:
            return self.z
        values = self.transition @ (previous() - previous.centre) + self.bias
        return self.centre + values if self.centre else values

    @torch.no_grad()
    def reset(self, draws: Draws) -> None:
        """First link: N(centre, std), as the vector form. Others: b = 0, and A copies (our decision).

        A has a 1 in row i, column i mod inputs: a wider level repeats the numbers of the one before, a
        narrower one takes its first. So every representation starts with the spread of the vector form,
        where the rows of a plain identity beyond the inputs would start at exactly nothing.
        """
        (previous,) = self._previous
        if previous is None:
            self.z.copy_(draws.normal("z", self.z.shape, self.centre, self.config.std))
            return
        rows = torch.arange(self.size, device=self.transition.device)
        self.transition.zero_()
        self.transition[rows, rows % previous.size] = 1
        self.bias.zero_()
