"""What a run may end with. A user's mistake is a `Refused`: one message, no traceback."""

from __future__ import annotations


class Refused(Exception):
    """Something the user can mend. The text says what is wrong, where, and what to write instead."""

    exit_code = 1


class GateFailed(Refused):
    """A checked table did not pass; what follows must not run. Never retried."""

    exit_code = 65


class TryAgain(Refused):
    """A failure that may pass by itself: an endpoint that is down, a lock that is held."""

    exit_code = 75


class CapReached(Refused):
    """A cap on tokens or cost was reached; everything received is kept. Never retried."""

    exit_code = 76
