"""PyTorch's state dicts: `.safetensors`, and `.pth` in zip form, whose pickle is read without executing anything."""
