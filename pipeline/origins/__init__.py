"""Origins: where a model comes from."""
