"""From a file, bytes or an array to an input tensor: decoding, resizes, recipes, labels, and the drawn example."""
