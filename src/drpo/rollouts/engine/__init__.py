"""A rollout engine in its own process: the messages, the process, and the weights that both sides share."""
