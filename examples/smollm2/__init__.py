"""A pretrained chat model of 49,152 tokens that learns sums on two CPU cores: ``make demo-llm`` (docs/demo-llm.md)."""

COMMAND = "python -m examples.smollm2"
