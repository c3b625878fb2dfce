"""Runs that have left plain files, sent to the trackers that other projects use."""
