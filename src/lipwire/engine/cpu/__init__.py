"""Sessions and runs of networks on the processor."""
