"""`python -m ablations`, for where the console script is not installed."""

from __future__ import annotations

from ablations.cli import main

main(prog_name="ablate")
