"""Training: stored rows and a recipe become a student."""
