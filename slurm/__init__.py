"""Where jobs run: on SLURM, on this machine. Knows nothing of models, tables or experiments."""


class ClusterError(Exception):
    """A profile, a scheduler's answer or a job that cannot be used; the message says what would do."""
