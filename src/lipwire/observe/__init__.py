"""What a server says about itself while it runs: logs, and profiles where they are asked for."""

from lipwire.observe.logfile import FileHandler
from lipwire.observe.logs import LogLevel, configure_logging

__all__ = ["FileHandler", "LogLevel", "configure_logging"]
