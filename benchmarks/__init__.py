"""Measurements against peers, side by side in one run: a file each, with `main()`; never timed tests."""
