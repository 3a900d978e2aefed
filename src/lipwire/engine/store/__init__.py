"""The compiled network on disk: its graphs, its weights, and what describes them."""
