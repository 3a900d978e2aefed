"""The view of running servers that ``lipwire top`` shows."""
