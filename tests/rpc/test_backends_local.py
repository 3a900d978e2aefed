"""With real networks, small ones; the oracle is the engine called directly."""
