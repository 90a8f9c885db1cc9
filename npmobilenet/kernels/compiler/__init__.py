"""What compiles and runs kernels: Numba, its cache, object code, tasks and programs."""
