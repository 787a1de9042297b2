"""The command line: `stillhouse <command>`, the same as `python -m pipeline <command>`.

`dvc.yaml` calls `plan` and `<stage> <instance>`; people call the rest.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from pipeline.core import warm
from pipeline.display import printable
from pipeline.errors import Refused


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake is one message and an exit code, without a traceback."""
    warm.die_with_parent()
    given = list(sys.argv[1:] if argv is None else argv)
    delegated = warm.delegate(given)
    if delegated is not None:
        return delegated
    # Only now: where the warm parent has done it, nothing of this is needed.
    from pipeline.commands.parser import parser

    arguments = vars(parser(*given[:1]).parse_args(given))
    verb, run = arguments.pop("verb"), arguments.pop("run")
    started = time.monotonic()
    try:
        run(**arguments)
    except Refused as error:
        # An error may quote what a model wrote.
        print(printable(f"{verb}: {error}"), file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python must not try to flush what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print(f"{verb}: stopped after {time.monotonic() - started:.0f} s; what was received is kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
