"""Text: what is done to text without a model."""
