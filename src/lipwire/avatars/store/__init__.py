"""Avatars in a store: their versions there, how they come and go, and the cache on this machine."""
