"""The book: one file for each op, plain loops in plain Python, readable and (through `compiler/jit.py`) runnable."""
