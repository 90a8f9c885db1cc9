"""The reference kernels: one file for each op, plain Python loops that `compiler/jit.py` compiles as they are."""
