"""Networks in kernels of Lipwire's own: planned, lowered, compiled, tried, run."""
