"""Packed splits: all images of a split in one checksummed, memory-mapped file that every process shares."""
