"""Compiling and validating a package in a process of its own, with limits."""
