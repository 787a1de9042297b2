"""Rules: which prompts or answers are not to be used, and what shows it."""
