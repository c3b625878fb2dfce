"""Blocks and stems against independent references, and the scaling of width and depth."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from yolor_core.models.blocks import pyramid
from yolor_core.models.trunk import DWT, ReOrg, scaled_channels, scaled_repeats


def uniform(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_chained_pools_equal_the_pools_of_9_and_13() -> None:
    x = uniform(2, 3, 17, 20) - 0.5
    pools = [functional.max_pool2d(x, k, stride=1, padding=k // 2) for k in (5, 9, 13)]
    assert torch.equal(pyramid(x, largest_first=False), torch.cat([x, *pools], dim=1))
    assert torch.equal(pyramid(x, largest_first=True), torch.cat([*pools[::-1], x], dim=1))


def test_reorg_and_wavelet_follow_their_definition_pixel_by_pixel() -> None:
    x = uniform(1, 2, 4, 6).double()
    reorg, dwt = ReOrg()(x), DWT()(x)
    assert reorg.shape == dwt.shape == (1, 8, 2, 3)
    for channel in range(2):
        for row in range(2):
            for column in range(3):
                (a, b), (c, d) = x[0, channel, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].tolist()
                assert reorg[0, channel::2, row, column].tolist() == [a, c, b, d]
                found = [dwt[0, channel, row, column].item()]
                found += dwt[0, 2 + 3 * channel : 5 + 3 * channel, row, column].tolist()
                low = (a + b + c + d) / 4
                details = [(a + b - c - d) / 4, (a - b + c - d) / 4, (a - b - c + d) / 4]
                assert found == pytest.approx([low, *(detail + 0.5 for detail in details)])


def test_scaling_rounds_channels_up_to_eight_and_repeats_to_at_least_one() -> None:
    assert [scaled_channels(c, 0.125) for c in (32, 64, 65, 255, 1024)] == [8, 8, 16, 32, 128]
    assert scaled_channels(640, 1.25) == 800
    assert [scaled_repeats(n, 0.33) for n in (1, 2, 3, 4, 7, 8)] == [1, 1, 1, 1, 2, 3]
    assert scaled_repeats(1, 3.0) == 1
