"""Servers as services of the operating system: the files that service managers read."""
