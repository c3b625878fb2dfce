"""The error of this package: something about a cluster that a user can act on."""

from __future__ import annotations


class ClusterError(Exception):
    """A profile, a scheduler's answer or a job that cannot be used; the message says what would do."""
