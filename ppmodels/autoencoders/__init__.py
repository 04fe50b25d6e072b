"""Autoencoders: data through a narrow place and back, from principal components to discrete codes."""
