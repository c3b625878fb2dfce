#!/usr/bin/env bash
# torchvision's complete IoU loss: one predicted box without height makes the weights before the head NaN, though the
# loss is finite; one without width does not. And equal boxes in units of the picture have a loss that grows as they shrink.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check torch==2.11.0 torchvision==0.26.0 numpy==2.2.6
cd "$folder"
bin/python -W ignore - <<'PYTHON'
import math

import torch
from torchvision import ops


def trained(distances):
    """A layer, and a head that predicts distances from (30, 25) to the sides of a box: after one step towards a true box."""
    torch.manual_seed(0)
    layer, head = torch.nn.Linear(8, 8), torch.nn.Linear(8, 4)
    with torch.no_grad():
        head.weight.mul_(0.01)
        head.bias.copy_(torch.tensor(distances))
    optimizer = torch.optim.SGD([*layer.parameters(), *head.parameters()], lr=0.1)
    left, top, right, bottom = head(layer(torch.ones(8))).relu()
    box = torch.stack([30 - left, 25 - top, 30 + right, 25 + bottom])[None]
    loss = ops.complete_box_iou_loss(box, torch.tensor([[10.0, 10, 50, 40]]), reduction="sum")
    loss.backward()
    optimizer.step()
    return loss.item(), layer.weight.isnan().float().mean().item()


seen = {}
for name, distances in {"usual": [9.0, 8, 7, 6], "no width": [-1.0, 8, -1, 6], "no height": [9.0, -1, 7, -1]}.items():
    seen[name] = trained(distances)
    print(f"{name}: loss {seen[name][0]:.3f}, {100 * seen[name][1]:.0f} % of the layer's weights NaN after a step")
assert seen["usual"][1] == seen["no width"][1] == 0 and seen["no height"][1] == 1
assert all(math.isfinite(loss) for loss, _ in seen.values())

flat = torch.tensor([[10.0, 10, 50, 10]])
print("a flat box with itself: IoU", ops.box_iou(flat, flat).item(), "- loss of distance IoU", ops.distance_box_iou_loss(flat, flat).item())
assert math.isnan(ops.box_iou(flat, flat).item()) and ops.distance_box_iou_loss(flat, flat).item() == 1

# 1e-7 is added to the union against 0 / 0, whatever the unit.
for pixels in (32, 8, 4, 2, 1):
    side = pixels / 1280
    same = torch.tensor([[0.0, 0, side, side]])
    losses = [f(same, same).item() for f in (ops.generalized_box_iou_loss, ops.distance_box_iou_loss, ops.complete_box_iou_loss)]
    print(f"equal boxes of {pixels} pixels of 1280, coordinates from 0 to 1: losses", [f"{v:.4f}" for v in losses])
    assert all(abs(v - 1e-7 / (side**2 + 1e-7)) < 2e-4 for v in losses)
PYTHON
