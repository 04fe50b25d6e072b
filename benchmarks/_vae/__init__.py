"""Peers of the variational autoencoder's benchmark."""
