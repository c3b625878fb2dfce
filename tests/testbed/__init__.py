"""A real SLURM cluster on one machine, for tests and for newcomers: `python -m tests.testbed start`.

Everything it needs lies below one folder, and nothing outside of it is changed.
"""

from tests.testbed.cluster import Testbed
from tests.testbed.config import Shape, TestbedError

__all__ = ["Shape", "Testbed", "TestbedError"]
