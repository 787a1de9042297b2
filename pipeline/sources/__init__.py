"""Sources: where prompts come from."""
