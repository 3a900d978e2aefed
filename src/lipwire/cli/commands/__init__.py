"""The commands: one module a command, registered by :mod:`lipwire.cli.app`."""
