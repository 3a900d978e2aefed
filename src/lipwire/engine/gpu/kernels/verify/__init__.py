"""Whether the kernels of a network make its mouths, tried before they are used."""
