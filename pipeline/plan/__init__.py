"""Plan: `params.yaml`, checked whole and resolved into one instance per entry."""
