"""Archives of strangers, unpacked within limits of memory, time and disk."""
