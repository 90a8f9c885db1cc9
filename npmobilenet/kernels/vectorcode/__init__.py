"""Generators of LLVM vector code: the inner loops of the fast kernels."""
