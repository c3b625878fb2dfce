#!/usr/bin/env bash
# Counters of parameters and multiplications: thop leaves out vectors of implicit knowledge, flopth all levels but one of a shared
# head; a transposed convolution costs four times its price in four, one with padding "same" nothing in two.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check torch==2.11.0 torchvision==0.26.0 numpy==2.4.6 setuptools==81.0.0 \
  thop==0.1.1.post2209072238 torchinfo==1.8.0 fvcore==0.1.5.post20221221 ptflops==0.7.5 torchprofile==0.1.0 flopth==0.1.6
cd "$folder"
bin/python -W ignore - <<'PYTHON'
import contextlib
import copy
import io
import logging

import flopth
import fvcore.nn
import ptflops
import thop
import torch
import torchinfo
import torchprofile
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

logging.disable(logging.CRITICAL)  # fvcore warns of what it does not know
CHANNELS, OUTPUTS, SIZE = 32, 48, 16


class Vector(nn.Module):
    """Implicit knowledge: one number a channel, added."""

    def __init__(self):
        super().__init__()
        self.implicit = nn.Parameter(torch.zeros(1, CHANNELS, 1, 1))

    def forward(self, features):
        return features + self.implicit


class Levels(nn.Module):
    """One head on three levels."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(CHANNELS, OUTPUTS, 1, bias=False)

    def forward(self, features):
        return [self.head(features), self.head(features[..., ::2, ::2]), self.head(features[..., ::4, ::4])]


def of_torch(model, features):
    with FlopCounterMode(display=False) as counter:
        model(features)
    return counter.get_total_flops() / 2, sum(parameter.numel() for parameter in model.parameters())


def of_torchinfo(model, features):
    counted = torchinfo.summary(model, input_data=features, verbose=0, device="cpu")
    return counted.total_mult_adds, counted.total_params


COUNTERS = {
    "torch": of_torch,
    "thop": lambda model, features: thop.profile(model, (features,), verbose=False),
    "torchinfo": of_torchinfo,
    "ptflops": lambda model, features: ptflops.get_model_complexity_info(
        model, tuple(features.shape[1:]), as_strings=False, print_per_layer_stat=False, verbose=False
    ),
    "fvcore": lambda model, features: (
        fvcore.nn.FlopCountAnalysis(model, features).total(), fvcore.nn.parameter_count(model)[""]
    ),
    "torchprofile": lambda model, features: (torchprofile.profile_macs(model, features), None),
    "flopth": lambda model, features: flopth.flopth(
        model, in_size=(tuple(features.shape[1:]),), show_detail=False, bare_number=True
    ),
}
pixels = SIZE * SIZE
MODELS = {  # each with its multiplications, without those of the vector
    "vector": (nn.Sequential(Vector(), nn.Conv2d(CHANNELS, OUTPUTS, 1, bias=False)), CHANNELS * OUTPUTS * pixels),
    "shared head": (Levels(), CHANNELS * OUTPUTS * (pixels + pixels // 4 + pixels // 16)),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(CHANNELS, OUTPUTS, 2, 2, bias=False)), CHANNELS * OUTPUTS * 4 * pixels),
    "same": (nn.Sequential(nn.Conv2d(CHANNELS, OUTPUTS, 3, padding="same", bias=False)), CHANNELS * OUTPUTS * 9 * pixels),
}
times, parameters = {}, {}
for name, (model, true) in MODELS.items():
    for counter, count in COUNTERS.items():
        with contextlib.redirect_stdout(io.StringIO()):
            operations, parameters[name, counter] = count(copy.deepcopy(model).eval(), torch.zeros(1, CHANNELS, SIZE, SIZE))
        times[name, counter] = round(operations / true, 2)
    print(f"{name}: counted / true multiplications", {counter: times[name, counter] for counter in COUNTERS})
print("parameters with a vector of 32:", {counter: parameters["vector", counter] for counter in COUNTERS})
weights = CHANNELS * OUTPUTS
assert {c for c in COUNTERS if parameters["vector", c] == weights} == {"thop"}
assert {c for c in COUNTERS if parameters["vector", c] == weights + CHANNELS} == set(COUNTERS) - {"thop", "torchprofile"}
assert times["shared head", "flopth"] < 0.06 and all(times["shared head", c] == 1 for c in COUNTERS if c != "flopth")
assert {c for c in COUNTERS if times["transposed", c] == 4} == {"thop", "torchinfo", "torchprofile", "flopth"}
assert all(times["transposed", c] == 1 for c in ("torch", "ptflops", "fvcore"))
assert {c for c in COUNTERS if times["same", c] == 0} == {"fvcore", "torchprofile"}
assert all(times["same", c] == 1 for c in ("torch", "thop", "torchinfo", "ptflops", "flopth"))
PYTHON
