"""A real SLURM cluster on one machine, for tests and for newcomers: `python -m slurm.testbed start`.

Everything it needs lies below one folder, and nothing outside of it is changed.
"""

from slurm.testbed.cluster import Testbed
from slurm.testbed.errors import TestbedError

__all__ = ["Testbed", "TestbedError"]
