"""Torch modules without Pyro: shapes in, shapes out."""
