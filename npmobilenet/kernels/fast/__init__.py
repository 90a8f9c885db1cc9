"""The fast twins of the book: same names, same bits. Each docstring lists the moves that make it fast."""
