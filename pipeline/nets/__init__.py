"""Small models of this project's own, a file for what they look at."""
