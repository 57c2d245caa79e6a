"""The model: where it comes from, loading it, its precision, its forward passes, and saving it."""
