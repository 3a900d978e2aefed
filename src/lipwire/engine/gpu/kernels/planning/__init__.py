"""From a network's graph to a plan of its blocks."""
