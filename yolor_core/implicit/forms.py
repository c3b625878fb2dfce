"""Forms of the implicit representation g(z) (paper section 4.2, figure 7).

`centre` is the value of g that changes nothing: 0 for addition and concatenation, 1 for multiplication.
The vector form draws z around it (section 4.3). The other two start near 0 whatever z is, so they return
centre + g~(z) with z ~ N(0, std): without it a product would begin by erasing the features (our decision).
"""

from __future__ import annotations

import hashlib
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from yolor_core.config import ImplicitConfig


class Draws:
    """Random numbers keyed by (seed, parameter name): no draw depends on which other parameters exist.

    Each name has its own generator, seeded by SHA-256 of seed and name. Values are drawn on the CPU in
    float32, so a model starts the same on every device.
    """

    def __init__(self, seed: int, prefix: str = "") -> None:
        self.seed, self.prefix = seed, prefix

    def within(self, name: str) -> Draws:
        """The same source for the parameters of a submodule."""
        return Draws(self.seed, f"{self.prefix}{name}.")

    def _generator(self, name: str) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed}:{self.prefix}{name}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def uniform(self, name: str, shape: Sequence[int], bound: float) -> Tensor:
        """U(-bound, bound), float32."""
        values = torch.rand(tuple(shape), generator=self._generator(name))
        return values.mul_(2 * bound).sub_(bound)

    def normal(self, name: str, shape: Sequence[int], mean: float, std: float) -> Tensor:
        """N(mean, std), float32."""
        return torch.randn(tuple(shape), generator=self._generator(name)).mul_(std).add_(mean)


class Form(nn.Module, ABC):
    """A constant vector g(z) of `size` numbers, computed from a learnt prior."""

    chained: ClassVar[bool] = False  # whether it is also given the representation that it follows from

    def __init__(self, size: int, centre: float, config: ImplicitConfig) -> None:
        super().__init__()
        self.size, self.centre, self.config = size, centre, config

    @abstractmethod
    def forward(self) -> Tensor:
        """g(z), shape (size,)."""

    @abstractmethod
    def reset(self, draws: Draws) -> None:
        """Set every parameter to its initial value."""

    def penalty(self) -> Tensor | None:
        """A term of the loss that belongs to this form, or None."""
        return None


class Vector(Form):
    """g(z) = z (eq. 6)."""

    def __init__(self, size: int, centre: float, config: ImplicitConfig) -> None:
        super().__init__(size, centre, config)
        self.z = nn.Parameter(torch.empty(size))

    def forward(self) -> Tensor:
        """g(z), shape (size,)."""
        return self.z

    @torch.no_grad()
    def reset(self, draws: Draws) -> None:
        """z ~ N(centre, std) (section 4.3)."""
        self.z.copy_(draws.normal("z", self.z.shape, self.centre, self.config.std))


_ACTIVATIONS = {"none": None, "relu": functional.relu, "silu": functional.silu, "tanh": torch.tanh}


class Network(Form):
    """g(z) = W z + b (eq. 7): linear as in the paper, or `depth` layers with an activation between them.

    The prior has prior_factor x size numbers (section 5.6: twice), and so have the hidden layers.
    """

    def __init__(self, size: int, centre: float, config: ImplicitConfig) -> None:
        super().__init__(size, centre, config)
        prior = config.prior_factor * size
        self.z = nn.Parameter(torch.empty(prior))
        widths = [prior] * config.depth + [size]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self) -> Tensor:
        """g(z), shape (size,)."""
        activation = _ACTIVATIONS[self.config.activation]
        values: Tensor = self.z
        for index, layer in enumerate(self.layers):
            if index and activation is not None:
                values = activation(values)
            values = layer(values)
        return self.centre + values if self.centre else values

    @torch.no_grad()
    def reset(self, draws: Draws) -> None:
        """z ~ N(0, std), layers as PyTorch's convolution: U(-1/sqrt(inputs), 1/sqrt(inputs))."""
        self.z.copy_(draws.normal("z", self.z.shape, 0.0, self.config.std))
        for name, parameter in self.layers.named_parameters():
            bound = 1 / math.sqrt(self.z.numel())
            parameter.copy_(draws.uniform(f"layers.{name}", parameter.shape, bound))


class Factorisation(Form):
    """g(z) = Z^T c (eq. 8) plus a bias: a mixture of prior_factor x size atoms, each of `size` numbers.

    The authors' figure computes it as a 1x1 convolution over the atoms, hence the single bias. Options of
    section 4.2: `sparse` weighs an L1 penalty on c; `nonnegative` passes Z and c through softplus (NMF).
    """

    def __init__(self, size: int, centre: float, config: ImplicitConfig) -> None:
        super().__init__(size, centre, config)
        atoms = config.prior_factor * size
        self.z = nn.Parameter(torch.empty(atoms, size))
        self.c = nn.Parameter(torch.empty(atoms))
        self.bias = nn.Parameter(torch.empty(1))

    def coefficients(self) -> Tensor:
        """c as it enters the product, shape (atoms,)."""
        return functional.softplus(self.c) if self.config.nonnegative else self.c

    def atoms(self) -> Tensor:
        """Z as it enters the product, shape (atoms, size)."""
        return functional.softplus(self.z) if self.config.nonnegative else self.z

    def forward(self) -> Tensor:
        """g(z), shape (size,)."""
        values = self.coefficients() @ self.atoms() + self.bias
        return self.centre + values if self.centre else values

    @torch.no_grad()
    def reset(self, draws: Draws) -> None:
        """Z ~ N(0, std), c and bias as PyTorch's convolution; with `nonnegative` their absolute values.

        Softplus would turn values near 0 into 0.69, whose product over all atoms dwarfs the features, so
        the stored tensors start at its inverse.
        """
        bound = 1 / math.sqrt(self.c.numel())
        z = draws.normal("z", self.z.shape, 0.0, self.config.std)
        c = draws.uniform("c", self.c.shape, bound)
        if self.config.nonnegative:
            z, c = _inverse_softplus(z.abs()), _inverse_softplus(c.abs())
        self.z.copy_(z)
        self.c.copy_(c)
        self.bias.copy_(draws.uniform("bias", self.bias.shape, bound))

    def penalty(self) -> Tensor | None:
        """sparse x |c|_1, or None."""
        return self.config.sparse * self.coefficients().abs().sum() if self.config.sparse else None


class Markov(Form):
    """Representations of several levels or tasks that follow from one another (section 4.2).

    A link of the chain z_{t+1} = A z_t + b with a learnt A; the first link is a free vector.

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


def _inverse_softplus(values: Tensor) -> Tensor:
    return torch.log(torch.expm1(values.clamp_min(1e-4)))
