"""Where objects are built from the configuration, and closed: the only package that knows all
others that a server needs."""

from lipwire.wiring.performing import open_performer, specialised

__all__ = ["open_performer", "specialised"]
