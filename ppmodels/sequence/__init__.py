"""Sequences: networks over time as likelihoods, with a Bayesian last layer."""
