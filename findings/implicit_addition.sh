#!/usr/bin/env bash
# YOLOR's and YOLOv7's implicit knowledge before and after a 1 x 1 convolution, exported to ONNX: the multiplication disappears in
# the weights, the addition before it stays a pass over the whole feature map, though it is worth one bias.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check torch==2.11.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.31.1 \
  onnxslim==0.1.98 onnxsim==0.8.1 onnxoptimizer==0.4.2 numpy==2.2.6
cd "$folder"
bin/python -W ignore - <<'PYTHON'
import contextlib
import io
import logging

import numpy
import onnx
import onnxoptimizer
import onnxruntime
import onnxsim
import onnxslim
import torch

logging.disable(logging.WARNING)

class Head(torch.nn.Module):
    """(x + a) through a 1 x 1 convolution, times m."""

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(64, 255, 1)
        self.a = torch.nn.Parameter(0.02 * torch.randn(1, 64, 1, 1))
        self.m = torch.nn.Parameter(1 + 0.02 * torch.randn(1, 255, 1, 1))

    def forward(self, x):
        return self.convolution(x + self.a) * self.m

torch.manual_seed(0)
head = Head().eval()
x = torch.randn(1, 64, 20, 20)
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    torch.onnx.export(head, (x,), "head.onnx", dynamo=True)
    exported = onnx.load("head.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = "by_runtime.onnx"
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession("head.onnx", options)
    simplified, _ = onnxsim.simplify(exported)
    graphs = {
        "torch": exported,
        "onnxruntime": onnx.load("by_runtime.onnx"),
        "onnxslim": onnxslim.slim("head.onnx"),
        "onnxsim": simplified,
        "onnxoptimizer": onnxoptimizer.optimize(exported, onnxoptimizer.get_fuse_and_elimination_passes()),
    }
kinds = {name: [node.op_type for node in graph.graph.node] for name, graph in graphs.items()}
for name, nodes in kinds.items():
    print(f"{name}: {nodes}")

with torch.no_grad():
    expected = head(x)
    kernel = head.convolution.weight[:, :, 0, 0]
    bias = head.convolution.bias + kernel @ head.a.flatten()
    by_hand = torch.nn.functional.conv2d(x, head.convolution.weight * head.m.flatten()[:, None, None, None], bias * head.m.flatten())
print("one convolution, made by hand, differs by", float((by_hand - expected).abs().max()))
assert (by_hand - expected).abs().max() < 1e-5
for graph in graphs.values():
    (result,) = onnxruntime.InferenceSession(graph.SerializeToString()).run(None, {graph.graph.input[0].name: x.numpy()})
    assert numpy.abs(result - expected.numpy()).max() < 1e-5
assert kinds["torch"] == kinds["onnxoptimizer"] == ["Add", "Conv", "Mul"]
assert kinds["onnxruntime"] == kinds["onnxslim"] == kinds["onnxsim"] == ["Add", "Conv"]
PYTHON
