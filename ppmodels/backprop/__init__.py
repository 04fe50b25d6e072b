"""Backpropagation, written to be read: one table of operations, and five ways to run it.

A function written with these operations can be run on plain floats, on nodes of a tape (reverse mode), on
dual numbers (forward mode), and on symbols. No array library is used.
"""
