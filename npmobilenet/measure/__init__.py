"""What is measured of a model: accuracy over data sets, times and memory."""
