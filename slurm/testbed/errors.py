"""The one error of this package."""

from __future__ import annotations


class TestbedError(Exception):
    """Something that the user can act on; the message is one or more sentences."""

    __test__ = False  # pytest takes a class of this name for a test
