"""Making an avatar: its dataset, networks, training and export (extra `[train]`)."""
