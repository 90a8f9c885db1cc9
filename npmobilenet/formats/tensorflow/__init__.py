"""TensorFlow checkpoints as TF-slim wrote them: bundle, index, sums, names of variables."""
