"""Making an avatar: synthetic speech, audio encoder, network, demo character (extra `[train]`)."""
