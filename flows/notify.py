"""Word of a run for those who do not watch it: a gate that failed, a verdict, sent where STILLHOUSE_NOTIFY says.

    STILLHOUSE_NOTIFY="https://hooks.example/abc sendgrid-email/us"     addresses, and blocks of Prefect

An address is sent JSON whose `text` is what chat services show; a block is named as its page in Prefect names it.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import httpx
from prefect import get_run_logger

VARIABLE = "STILLHOUSE_NOTIFY"


def notify(subject: str, text: str) -> None:
    """Tell everybody; who cannot be told is an error in the log, because the run is what it is all the same."""
    for target in os.environ.get(VARIABLE, "").split():
        address = "://" in target
        try:
            if address:
                content = {"subject": subject, "text": f"{subject}\n{text}"}
                httpx.post(target, json=content, timeout=20).raise_for_status()
            else:
                block = _block(target)
                with block.raise_on_failure():
                    block.notify(text, subject)
        except Exception as error:
            # An address is a secret, and an error of httpx quotes it.
            told = "an address" if address else target
            why = f"{type(error).__name__} {getattr(getattr(error, 'response', None), 'status_code', '')}".strip()
            get_run_logger().error(f"{VARIABLE}: {told} was not told: {why if address else error}")


def _block(name: str) -> Any:
    # A block is known once its module is imported; Prefect's own for Slack, e-mail and others are all in this one.
    importlib.import_module("prefect.blocks.notifications")
    from prefect.blocks.core import Block

    return Block.load(name)
