"""Model: a model folder on disk, its card, its chat template, its weights."""
