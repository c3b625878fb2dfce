"""BatchNorm with activation in one kernel, forward and backward, for training on one core of a CPU.

PyTorch computes Mish without vector instructions and walks a map seven times where two or three do. The
kernels here take float32 maps in channels-last order, where every row of memory holds whole pixels, so that
loops run over as many channels as a vector register has room for, and over several pixels of a map that has
few channels. Sums are taken in float32 over 32 rows and then in float64: the same numbers in every run, and
nearer to the exact ones than PyTorch's. Measured in `benchmarks/training_step.py --mini`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import carray, cfunc, njit, types  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from yolor_core.models import blocks
from yolor_core.models.blocks import BNAct

# `contract` alone of fastmath: it lets a product and a sum become one instruction, and leaves NaN what it is.
# A division by zero gives inf as in NumPy; to raise there would forbid vector instructions.
HOW: dict[str, Any] = {"cache": True, "fastmath": {"contract"}, "error_model": "numpy"}

ROWS = 32  # summed in float32 before they are added up in float64
WIDTH = 64  # floats of a row at least: four registers of 512 bits

F32 = np.float32
LOWEST, HIGHEST = (
    F32(-87),
    F32(40),
)  # e^x is a normal number; beyond 40 the activations are x and 0 to the bit
PER_OCTAVE, OCTAVE, REST = F32(1.4426950408889634), F32(0.693359375), F32(-2.12194440e-4)  # ln 2 in two parts
ROUND = F32(1.5 * 2**23)  # added to a small number leaves it rounded in the last bits of the sum
EXPONENT_0 = np.int32(0x4B400000 - 127)  # the bits of `ROUND`, less the offset of float32's exponent
FACTORS = tuple(F32(1 / math.factorial(n)) for n in range(7, 1, -1))
A7, A6, A5, A4, A3, A2 = FACTORS
ONE, TWO, FOUR = F32(1), F32(2), F32(4)


@njit(**HOW)
def exp(x):  # type: ignore[no-untyped-def]
    """e^x of a float32, to about its last bit: 2^n by its bits, e^r with |r| < 0.35 by Taylor's series."""
    x = LOWEST if x < LOWEST else x
    x = HIGHEST if x > HIGHEST else x
    shifted = x * PER_OCTAVE + ROUND
    n = shifted - ROUND
    r = (x - n * OCTAVE) - n * REST
    series = ((((A7 * r + A6) * r + A5) * r + A4) * r + A3) * r + A2
    exponent = np.float32(shifted).view(np.int32) - EXPONENT_0
    return (series * r * r + r + ONE) * np.int32(exponent << 23).view(np.float32)


# With e = e^u: silu(u) = u e / (e + 1) and mish(u) = u tanh(ln(1 + e)) = u z / (z + 2), z = e (e + 2).
# Loops over one row each: few arrays, so that the compiler can prove that they do not overlap.
@njit(**HOW)
def silu(y, x, scale, shift):  # type: ignore[no-untyped-def]
    for j in range(y.size):
        u = x[j] * scale[j] + shift[j]
        e = exp(u)
        y[j] = u * (e / (e + ONE))


@njit(**HOW)
def mish(y, x, scale, shift):  # type: ignore[no-untyped-def]
    for j in range(y.size):
        u = x[j] * scale[j] + shift[j]
        e = exp(u)
        z = e * (e + TWO)
        y[j] = u * (z / (z + TWO))


@njit(**HOW)
def silu_backward(d, g, x, scale, shift):  # type: ignore[no-untyped-def]
    for j in range(d.size):
        u = x[j] * scale[j] + shift[j]
        e = exp(u)
        q = ONE / (e + ONE)
        d[j] = g[j] * (e * q + u * (e * q) * q)


@njit(**HOW)
def mish_backward(d, g, x, scale, shift):  # type: ignore[no-untyped-def]
    for j in range(d.size):
        u = x[j] * scale[j] + shift[j]
        e = exp(u)
        z = e * (e + TWO)
        q = ONE / (z + TWO)
        d[j] = g[j] * (z * q + (FOUR * u) * (e * q) * ((e + ONE) * q))


@njit(**HOW)
def add(total, x):  # type: ignore[no-untyped-def]
    for j in range(total.size):
        total[j] += x[j]


@njit(**HOW)
def add_squares(total, x, mean):  # type: ignore[no-untyped-def]
    for j in range(total.size):
        total[j] += (x[j] - mean[j]) * (x[j] - mean[j])


@njit(**HOW)
def add_products(total, d, x, mean):  # type: ignore[no-untyped-def]
    for j in range(total.size):
        total[j] += d[j] * (x[j] - mean[j])


@njit(**HOW)
def combine(d, x, mean, scale, slope, offset):  # type: ignore[no-untyped-def]
    for j in range(d.size):
        d[j] = scale[j] * d[j] + (slope[j] * (x[j] - mean[j]) + offset[j])


@njit(**HOW)
def repeated(values, width):  # type: ignore[no-untyped-def]
    """(channels,) -> (width,), once for every pixel of a row."""
    row = np.empty(width, np.float32)
    for j in range(width):
        row[j] = values[j % values.size]
    return row


@njit(**HOW)
def moments(x, channels):  # type: ignore[no-untyped-def]
    """Mean (channels,) of x (rows, width), and sum of squared distances from it; float64."""
    rows, width = x.shape
    mean, squares = np.zeros(width), np.zeros(width)
    here, around = np.empty(width, np.float32), np.empty(width, np.float32)
    for first in range(0, rows, ROWS):
        count = min(ROWS, rows - first)
        here[:], around[:] = F32(0), F32(0)
        for i in range(first, first + count):
            add(here, x[i])
        for j in range(width):
            here[j] /= F32(count)
        for i in range(first, first + count):
            add_squares(around, x[i], here)
        for j in range(width):  # Chan, Golub and LeVeque's rule for the moments of two sets together
            distance = here[j] - mean[j]
            mean[j] += distance * count / (first + count)
            squares[j] += around[j] + distance * distance * first * count / (first + count)
    pixels = width // channels
    centre, spread = np.zeros(channels), np.zeros(channels)
    for j in range(width):
        centre[j % channels] += mean[j] / pixels
    for j in range(width):
        distance = mean[j] - centre[j % channels]
        spread[j % channels] += squares[j] + rows * distance * distance
    return centre, spread


POINTER, COUNT, NUMBER = types.voidptr, types.intp, types.float64


# Called through ctypes with addresses: taking tensors for arrays would cost more than a small map does.
@cfunc(types.void(*[POINTER] * 7, *[COUNT] * 3, NUMBER, NUMBER, types.boolean), **HOW)
def forward(  # type: ignore[no-untyped-def]
    map_, out, weight, bias, running, running_variance, kept, rows, width, channels, eps, momentum, smooth
):
    """y of x (rows, width), the running statistics moved; `kept` (4, channels): mean, 1 / deviation, scale
    and shift of x."""
    x, y = carray(map_, (rows, width), np.float32), carray(out, (rows, width), np.float32)
    w, b = carray(weight, channels, np.float32), carray(bias, channels, np.float32)
    means = carray(running, channels, np.float32)
    variances = carray(running_variance, channels, np.float32)
    keep = carray(kept, (4, channels), np.float32)
    count = rows * width // channels
    mean, squares = moments(x, channels)
    for c in range(channels):
        inverse = 1 / math.sqrt(squares[c] / count + eps)
        keep[0, c], keep[1, c] = mean[c], inverse
        keep[2, c] = w[c] * inverse
        keep[3, c] = b[c] - mean[c] * w[c] * inverse
        means[c] += momentum * (mean[c] - means[c])
        variances[c] += momentum * (squares[c] / (count - 1) - variances[c])
    scale, shift = repeated(keep[2], width), repeated(keep[3], width)
    if smooth:
        for i in range(rows):
            mish(y[i], x[i], scale, shift)
    else:
        for i in range(rows):
            silu(y[i], x[i], scale, shift)


@cfunc(types.void(*[POINTER] * 5, *[COUNT] * 3, types.boolean), **HOW)
def backward(map_, gradient, out, kept, sums, rows, width, channels, smooth):  # type: ignore[no-untyped-def]
    """Gradients of x (rows, width), and (2, channels) of weight and bias, from that of y."""
    x, g = carray(map_, (rows, width), np.float32), carray(gradient, (rows, width), np.float32)
    d, found = carray(out, (rows, width), np.float32), carray(sums, (2, channels), np.float32)
    keep = carray(kept, (4, channels), np.float32)
    mean, scale, shift = repeated(keep[0], width), repeated(keep[2], width), repeated(keep[3], width)
    total, products = np.zeros(channels), np.zeros(channels)
    here, around = np.empty(width, np.float32), np.empty(width, np.float32)
    for first in range(0, rows, ROWS):
        here[:], around[:] = F32(0), F32(0)
        for i in range(first, min(first + ROWS, rows)):
            if smooth:
                mish_backward(d[i], g[i], x[i], scale, shift)
            else:
                silu_backward(d[i], g[i], x[i], scale, shift)
            add(here, d[i])
            add_products(around, d[i], x[i], mean)
        for j in range(width):
            total[j % channels] += here[j]
            products[j % channels] += around[j]
    slope, offset = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for c in range(channels):
        found[0, c], found[1, c] = products[c] * keep[1, c], total[c]
        count = rows * width // channels
        slope[c] = -keep[2, c] * keep[1, c] * keep[1, c] * products[c] / count
        offset[c] = -keep[2, c] * total[c] / count
    slopes, offsets = repeated(slope, width), repeated(offset, width)
    for i in range(rows):
        combine(d[i], x[i], mean, scale, slopes, offsets)


FORWARD, BACKWARD = forward.ctypes, backward.ctypes


class NormalisedActivation(torch.autograd.Function):
    """act(bn(x)) of a map (B, C, H, W) in training mode, and its gradients."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, bn: nn.BatchNorm2d, smooth: bool
    ) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        channels, width, size = x.shape[1], x.shape[1], x.numel()
        while width < WIDTH and not size % (2 * width):
            width *= 2
        y, kept = torch.empty_like(x), x.new_empty(4, channels)
        assert bn.running_mean is not None and bn.running_var is not None
        addresses = (t.data_ptr() for t in (x, y, weight, bias, bn.running_mean, bn.running_var, kept))
        FORWARD(*addresses, size // width, width, channels, bn.eps, bn.momentum, smooth)
        ctx.save_for_backward(x, kept)
        ctx.width, ctx.smooth = width, smooth
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, kept = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        d, sums = torch.empty_like(x), torch.empty_like(kept[:2])
        addresses = (t.data_ptr() for t in (x, gradient, d, kept, sums))
        BACKWARD(*addresses, x.numel() // ctx.width, ctx.width, x.shape[1], ctx.smooth)
        return d, sums[0], sums[1], None, None


def normalised(x: Tensor, bn: nn.Module, act: nn.Module) -> Tensor:
    """As `blocks.normalised`, by the kernels where they apply.

    They are told addresses and trust them, so everything is looked at here: a float32 map (B, C, H, W) of two
    pixels or more, in training, all that a BatchNorm of C channels usually has, and no hook between the two.
    """
    if (
        type(bn) is not nn.BatchNorm2d
        or type(act) not in (nn.SiLU, nn.Mish)
        or not bn.training
        or x.dim() != 4
        or x.dtype != torch.float32
        or x.numel() < 2 * x.shape[1]
        or not x.is_cpu
        or torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
        or bn.momentum is None
        or bn.num_batches_tracked is None
        or not all(_plain(t, x.shape[1]) for t in (bn.weight, bn.bias, bn.running_mean, bn.running_var))
        or any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in (bn, act))
    ):
        return blocks.normalised(x, bn, act)
    bn.num_batches_tracked.add_(1)
    y: Tensor = NormalisedActivation.apply(x, bn.weight, bn.bias, bn, type(act) is nn.Mish)
    return y


def _plain(t: Tensor | None, channels: int) -> bool:
    return t is not None and t.dtype == torch.float32 and t.shape == (channels,) and t.is_contiguous()


def use_kernels(model: nn.Module) -> None:
    """Let a model's normalisations with their activations be computed by the kernels while it trains."""
    for block in model.modules():
        if isinstance(block, BNAct):
            block.normalised = normalised
