"""A network compiled for GPUs on disk: graphs, weights as a GPU takes them, and their manifest."""
