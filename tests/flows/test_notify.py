"""Who is told of a run, and what becomes of a run of which nobody can be told."""

from __future__ import annotations

import logging

import httpx
import pytest
from prefect.blocks.notifications import SendgridEmail

from flows import notify


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """The log of a run that there is not."""
    logger = logging.getLogger("tests.notify")
    monkeypatch.setattr(notify, "get_run_logger", lambda: logger)
    return logger


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # the block's library needs it
def test_the_block_for_e_mail_is_told(monkeypatch: pytest.MonkeyPatch, log: logging.Logger) -> None:
    sent: list[tuple[str, str]] = []
    block = SendgridEmail(api_key="key", sender_email="us@localhost.test", to_emails=["you@localhost.test"])
    monkeypatch.setattr("apprise.Apprise.notify", lambda self, body, title, **_: not sent.append((title, body)))
    monkeypatch.setattr(notify, "_block", {"sendgrid-email/us": block}.__getitem__)
    monkeypatch.setenv(notify.VARIABLE, "sendgrid-email/us")
    notify.notify("work: Gate failed", "why")
    assert sent == [("work: Gate failed", "why")]


def test_who_cannot_be_told_is_in_the_log_without_the_address(
    monkeypatch: pytest.MonkeyPatch, log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    def post(url: str, **_: object) -> httpx.Response:
        return httpx.Response(403, request=httpx.Request("POST", url))

    monkeypatch.setattr(httpx, "post", post)
    monkeypatch.setattr(notify, "_block", {}.__getitem__)
    monkeypatch.setenv(notify.VARIABLE, "https://hooks.test/secret slack-webhook/none")
    notify.notify("work: Ran", "verdict")
    first, second = caplog.messages
    assert "an address was not told: HTTPStatusError 403" in first and "secret" not in first
    assert "slack-webhook/none was not told" in second


def test_nobody_is_told_unless_it_is_said_who(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(notify.VARIABLE, raising=False)
    monkeypatch.setattr(httpx, "post", lambda *_, **__: pytest.fail("somebody was told"))
    notify.notify("work: Ran", "verdict")
