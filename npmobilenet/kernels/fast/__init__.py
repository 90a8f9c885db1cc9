"""The fast twins of the reference kernels: same names, same bits. Each docstring lists the moves that make it fast."""
