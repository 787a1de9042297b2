"""Gateway: one address over HTTP, and what it says."""
