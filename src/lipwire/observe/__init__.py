"""What a server says about itself while it runs."""

from lipwire.observe.logs import LogLevel, configure_logging

__all__ = ["LogLevel", "configure_logging"]
