"""Laws: what every method of a kind obeys, tried on a method by itself, for our suite and for a user's own method."""
