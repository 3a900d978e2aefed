"""How many machines so many people need: arithmetic, and a simulation to believe it by."""
