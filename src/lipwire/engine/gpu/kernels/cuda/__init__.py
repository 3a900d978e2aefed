"""The kernels' text in CUDA C++, what it agrees with, and its compiler and launches."""
