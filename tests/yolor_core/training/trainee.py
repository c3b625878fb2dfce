"""A process that trains a run and meets with an accident: `python trainee.py CONFIG.json RUN_DIR [ACCIDENT]`.

Accidents, RANK counting from 0 and N from 1: `kill RANK N` (SIGKILL between two steps), `kill-writing RANK N`
(SIGKILL when the N-th file is about to be put in place), `kill-checkpoint RANK N` (between the two moves that
make the N-th checkpoint the newest), `stop RANK N`, `raise RANK N`, `hang RANK N`,
`nan RANK N` (the N-th batch has NaN pixels). TRAINEE_DOUBLE=1 computes in float64, so that the
rounding of sums taken in another order is not amplified into a difference.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from torch import Tensor

import yolor_core.training.step as step
from yolor_core.config import RunConfig
from yolor_core.data import Batch
from yolor_core.errors import YolorError
from yolor_core.training import train
from yolor_core.training.distributed import place
from yolor_core.training.schedule import Settings


def kill() -> None:
    """Die as from the out-of-memory killer, a node failure or `scancel --signal=KILL`."""
    os.kill(os.getpid(), signal.SIGKILL)


def main(config: str, run_dir: str, accident: str = "none", rank: str = "0", when: str = "0") -> int:
    """Train; the exit code is 0 when done, 3 when preempted, 1 for an error."""
    mine, calls = int(rank) == place().rank, 0

    def due() -> bool:
        nonlocal calls
        calls += 1
        return mine and calls == int(when)

    def stop() -> bool:
        if accident not in ("kill", "stop", "raise", "hang") or not due():
            return False
        if accident == "kill":
            kill()
        if accident == "raise":
            raise YolorError("an accident")
        if accident == "hang":
            time.sleep(600)
        return True

    replace = os.replace

    def replace_or_die(source: str, target: str) -> None:
        if accident == "kill-writing" and due():
            kill()
        if accident == "kill-checkpoint" and str(target).endswith("checkpoint.pt") and due():
            kill()
        replace(source, target)

    os.replace = replace_or_die  # type: ignore[assignment]

    class Spoilt(step.TrainingStep):
        def __call__(self, batch: Batch, settings: Settings, *more: Any) -> dict[str, float]:
            if accident == "nan" and due():
                with_nan = self.numerics.images
                self.numerics.images = lambda x: with_nan(x) * float("nan")  # type: ignore[method-assign]
            return super().__call__(batch, settings, *more)

    import yolor_core.training.loop as loop

    class Double(loop.Numerics):
        def model(self, model: Any) -> Any:
            return super().model(model).double()

        def images(self, images: Tensor) -> Tensor:
            return super().images(images).double()

    if os.environ.get("TRAINEE_DOUBLE") == "1":
        loop.Numerics = Double  # type: ignore[misc]

    loop.TrainingStep = Spoilt  # type: ignore[misc]
    state = train(RunConfig.from_json(Path(config).read_text()), run_dir, stop)
    return 0 if state == "done" else 3


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except YolorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
