"""What Lipwire finds out about, or is told of, the place it runs in."""

from lipwire.config.machine import Machine, describe_machine, usable_cores

__all__ = ["Machine", "describe_machine", "usable_cores"]
