"""The run directory: the only contract between training and analysis."""
