""".tflite files: the flatbuffer, its constants and metadata, operators to nodes."""
