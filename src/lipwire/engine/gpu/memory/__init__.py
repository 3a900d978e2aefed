"""A GPU's memory: what weights and crops take of it, and what is evicted when it is full."""
