"""Lipwire: real-time lip-sync video, served.

Speech comes in, video of a person speaking it comes out. The Python API is in :mod:`lipwire.api`.
"""

__version__ = "0.1.0"
