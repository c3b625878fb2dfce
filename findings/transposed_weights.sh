#!/usr/bin/env bash
# safetensors 0.8.0 stores transposed numpy arrays with their numbers out of order, without a word; 0.7.0 stores them right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
for version in 0.7.0 0.8.0; do
  "$folder/bin/pip" install -q --disable-pip-version-check safetensors==$version numpy==2.4.6
  (
    cd "$folder"
    bin/python - <<'PYTHON'
import numpy
import safetensors
from safetensors.numpy import load_file, save_file

generator = numpy.random.default_rng(0)
kernel = generator.normal(size=(3, 3, 16, 32)).astype("float32")  # height, width, inputs, outputs, as TensorFlow and JAX have it
weights = {
    "conv": kernel.transpose(3, 2, 0, 1),  # as PyTorch has it
    "copied": kernel.transpose(3, 2, 0, 1).copy(),
    "linear": generator.normal(size=(16, 32)).astype("float32").T,
    "vector": numpy.full((1, 16, 1, 1), 0.02, "float32").transpose(0, 2, 3, 1),  # one number a channel: nothing to mix up
}
save_file(weights, "weights.safetensors")
numpy.savez("weights.npz", **weights)
loaded, plain = load_file("weights.safetensors"), numpy.load("weights.npz")
right = {name: bool(numpy.array_equal(loaded[name], array)) for name, array in weights.items()}
print(f"safetensors {safetensors.__version__}: shapes equal", all(loaded[n].shape == a.shape for n, a in weights.items()),
      "- values equal", right, "- means equal", bool(numpy.isclose(loaded["conv"].mean(), kernel.mean())))
assert all(numpy.array_equal(plain[name], array) for name, array in weights.items())
assert all(loaded[name].shape == array.shape for name, array in weights.items())
assert right["copied"] and right["vector"]
assert right["conv"] == right["linear"] == (safetensors.__version__ == "0.7.0")
image = generator.normal(size=(16 * 9,)).astype("float32")
true = weights["conv"].reshape(32, -1) @ image
correlation = numpy.corrcoef(true, loaded["conv"].reshape(32, -1) @ image)[0, 1]
print(f"  outputs of the convolution against the true ones: correlation {correlation:.2f}")
assert (correlation > 0.999) == (safetensors.__version__ == "0.7.0")
PYTHON
  )
done
