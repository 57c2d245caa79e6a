"""The vLLM sampler and the program of its process."""
