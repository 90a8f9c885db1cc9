"""Writing .onnx files."""
