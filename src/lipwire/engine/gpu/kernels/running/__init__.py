"""Runs of a network in kernels."""
