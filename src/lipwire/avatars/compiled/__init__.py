"""The compiled form of an avatar on disk: its parts, what they are made from, their files."""
