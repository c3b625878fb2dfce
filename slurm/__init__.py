"""Where jobs run: on SLURM, on this machine. Knows nothing of models, tables or experiments."""
