"""What an integer kernel needs to know beside its arrays, computed from the tensors' quantization and the dialect.

One file for each kind of op; the plan computes these once, and the golden tools show and export them.
"""
