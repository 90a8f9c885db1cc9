"""Keras files, .h5 and .keras: reading, the layers' names, and the check against keras.applications."""
