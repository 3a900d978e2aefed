"""Where objects are built and who closes them: the one place that knows all the parts."""

from lipwire.wiring.performing import CompileProgress, open_performer

__all__ = ["CompileProgress", "open_performer"]
