"""Tables: what the data is, and how it is read, written and queried."""
