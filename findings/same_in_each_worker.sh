#!/usr/bin/env bash
# albumentations under a DataLoader: every worker draws the same augmentations, and draws them again in each epoch, seeded or not,
# whatever torch's seed. With 4 workers, 40 pictures see 10 changes in 5 epochs instead of 200.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check torch==2.11.0 albumentations==2.0.8 numpy==2.2.6
cd "$folder"
cat > seen.py <<'PYTHON'
import albumentations
import numpy
import torch

EPOCHS, IMAGES = 5, 40


class Pictures(torch.utils.data.Dataset):
    def __init__(self, seed):
        change = albumentations.RandomBrightnessContrast(p=1)
        self.change = albumentations.Compose([change], seed=seed)

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        picture = numpy.full((8, 8, 3), 100, numpy.uint8)
        picture[:4] = 140
        changed = self.change(image=picture)["image"]
        return int(changed[0, 0, 0]) * 256 + int(changed[-1, 0, 0])


def drawn(seed, workers, of_torch=0):
    """What each picture became, by epoch."""
    torch.manual_seed(of_torch)
    loader = torch.utils.data.DataLoader(Pictures(seed), batch_size=1, num_workers=workers)
    return [[int(value) for value in loader] for _ in range(EPOCHS)]


if __name__ == "__main__":
    for seed in (7, None):
        for workers in (0, 2, 4):
            epochs = drawn(seed, workers)
            kinds = len({value for epoch in epochs for value in epoch})
            print(f"seed={seed}, {workers} workers: {kinds} different changes in {EPOCHS} epochs of {IMAGES} pictures")
            if workers:
                first = epochs[0]
                assert all(epoch == first for epoch in epochs) and kinds <= IMAGES // workers
                assert all(first[n : n + workers] == [first[n]] * workers for n in range(0, IMAGES, workers))
            else:
                assert kinds > 150
    assert drawn(7, 2, of_torch=1) == drawn(7, 2, of_torch=2)
PYTHON
bin/python -W ignore seen.py
