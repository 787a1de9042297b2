"""Networks: one kind of model each, how it is fed, looked at and kept."""
