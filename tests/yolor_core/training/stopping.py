"""How a test asks a run to stop."""

from __future__ import annotations

from collections.abc import Callable


def stop_after(calls: int) -> Callable[[], bool]:
    """A `stop` that answers True from its `calls`-th question on."""
    asked = iter(range(10**6))
    return lambda: next(asked) >= calls
