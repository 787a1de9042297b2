"""`python -m flows [TARGET ...]`: `flows.distill` by hand, which does not pay for Prefect where nothing changed."""

from __future__ import annotations

import sys

from flows.graph import GraphError, idle


def main() -> int:
    """Look first; an option, or a fault, is for the flow to read."""
    targets = sys.argv[1:]
    try:
        if not any(word.startswith("-") for word in targets) and idle(targets):
            print("nothing changed")
            return 0
    except GraphError as error:
        print(error, file=sys.stderr)
        return 1
    from flows.distill import main

    return main(targets)


if __name__ == "__main__":
    sys.exit(main())
