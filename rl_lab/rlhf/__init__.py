"""The RLHF module: language models that learn from human preferences. Not built yet."""
