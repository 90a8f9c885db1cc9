"""The book: one file for each op, plain loops in plain Python, readable and (through `kernels/jit.py`) runnable."""
