"""The character as meshes, in plain NumPy: its skin under six mouth controls, and all round it."""
