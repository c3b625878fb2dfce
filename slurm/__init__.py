"""Where jobs run: through submitit, on this machine. Knows nothing of models, tables or experiments."""
