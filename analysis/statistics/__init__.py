"""What the differences of an ablation are worth: intervals, corrected p-values, verdicts, seeds to plan for.

Functions take arrays and return small records; nothing here reads files or draws.
"""
