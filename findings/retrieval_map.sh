#!/usr/bin/env bash
# torchmetrics' mAP of retrieval takes objects with a score of 0 or less for irrelevant: negative cosines raise it, negative
# distances make it 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check torchmetrics==1.9.0 torch==2.11.0 scikit-learn==1.9.1 numpy==2.4.6
cd "$folder"
bin/python -W ignore - <<'PYTHON'
import torch
from sklearn.metrics import average_precision_score
from torchmetrics.retrieval import RetrievalMAP, RetrievalMRR

QUERIES, GALLERY, NAMES, SIZE = 50, 300, 20, 8
generator = torch.Generator().manual_seed(0)
centres = torch.randn(NAMES, SIZE, generator=generator)


def seen(number):
    """Embeddings of objects seen again, and whose they are."""
    names = torch.randint(0, NAMES, (number,), generator=generator)
    return centres[names] + 1.5 * torch.randn(number, SIZE, generator=generator), names


(queries, asked), (gallery, known) = seen(QUERIES), seen(GALLERY)
relevant = asked[:, None] == known[None]
indexes = torch.arange(QUERIES).repeat_interleave(GALLERY)
cosines = torch.nn.functional.normalize(queries) @ torch.nn.functional.normalize(gallery).T
scores = {
    "cosines": cosines,
    "(1 + cosine) / 2, the same order": (1 + cosines) / 2,
    "negative distances": -torch.cdist(queries, gallery),
    "1 / (1 + distance), the same order": 1 / (1 + torch.cdist(queries, gallery)),
}
found = {}
for name, score in scores.items():
    one = [average_precision_score(truth.numpy(), row.numpy()) for truth, row in zip(relevant, score)]
    values = score.flatten(), relevant.flatten()
    found[name] = [round(100 * float(value), 1) for value in (
        RetrievalMAP()(*values, indexes=indexes), sum(one) / QUERIES, RetrievalMRR()(*values, indexes=indexes))]
    print(f"{name}: mAP {found[name][0]}, scikit-learn {found[name][1]}; torchmetrics' reciprocal rank {found[name][2]}")
print("relevant pairs with a negative cosine:", f"{100 * float((cosines[relevant] < 0).float().mean()):.0f} %")
cosine, shifted, distance, inverse = found.values()
assert cosine[1] == shifted[1] == shifted[0] and cosine[0] > cosine[1] + 1
assert distance[1] == inverse[1] == inverse[0] and distance[0] == distance[2] == 0 < inverse[2]
PYTHON
