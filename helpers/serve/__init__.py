"""Notebook 07 as a page of its own, by Voila: `python -m helpers.serve`. TensorFlow is the kernels' alone."""
