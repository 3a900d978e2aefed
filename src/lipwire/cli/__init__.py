"""The command line, registered by :mod:`lipwire.cli.app`."""
