"""TensorFlow checkpoints as TF-slim wrote them: files, index, sums, names of variables."""
