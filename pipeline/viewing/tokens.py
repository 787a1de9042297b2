"""What a model says of every token that a student was trained on, to be shaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.asking.read import read_all
from pipeline.bounded import Ended, Limits, bounded
from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.errors import Refused
from pipeline.kinds.backend import PLAIN, Tokens, card_of, engine_of
from pipeline.memo.memo import Memo, reading_key
from pipeline.model.chat import Chat
from pipeline.model.folder import CAUSAL, SPOKEN, network_of

# Probabilities from which a token is shaded as one of seven likelihoods, the likeliest first.
SHADES = (0.95, 0.8, 0.5, 0.2, 0.05, 0.01)
# Seconds that a model may take to read one text here.
PATIENCE = Limits(seconds=600)
# A token that ends a line is shown as this, and its line ends.
RETURN = "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"


@dataclass(frozen=True)
class Token:
    """A token as it is shown; `logprob` in nats is None for one that is not learnt, or of which nothing is known."""

    text: str
    logprob: float | None = None

    @property
    def shade(self) -> int | None:
        """Which of the likelihoods, 0 the likeliest."""
        if self.logprob is None:
            return None
        return sum(math.exp(self.logprob) < least for least in SHADES)


@dataclass(frozen=True)
class Line:
    """What one model says of the tokens, or that it has not been asked."""

    name: str
    about: str
    tokens: Sequence[Token] = ()

    @property
    def mean(self) -> float | None:
        """The mean log-probability of a token, in nats."""
        known = [token.logprob for token in self.tokens if token.logprob is not None]
        return sum(known) / len(known) if known else None


def texts(form: Path, token_ids: Sequence[int]) -> list[str]:
    """What every token spells. One that is only a part of a character is shown as its tokenizer writes it."""
    tokenizer, found = Chat(form).tokenizer, []
    for number in token_ids:
        text = tokenizer.decode([number], skip_special_tokens=False)
        if not text or "\ufffd" in text:
            text = tokenizer.id_to_token(number) or f"<{number}>"
        found.append(text.replace("\n", f"{RETURN}\n"))
    return found


def line(name: str, about: str, spelt: Sequence[str], logprobs: Sequence[float | None]) -> Line:
    """Tokens with what a model says of them."""
    return Line(name, about, [Token(text, value) for text, value in zip(spelt, logprobs, strict=True)])


def readable(model: Path) -> bool:
    """Whether a model can be asked here what it says of a token."""
    form = model / "tokenizer"
    return (model / "model.json").exists() and form.is_dir() and network_of(form) in (CAUSAL, *SPOKEN)


def known(models: Mapping[str, Path], asked: Tokens, memo: Path) -> dict[str, list[float]]:
    """What models were found to say before: their readings in the memo."""
    if not memo.is_dir():
        return {}
    keys = {}
    for name, folder in models.items():
        card = card_of(folder)
        keys[name] = reading_key(asked, card["model_id"], engine_of(card), PLAIN)
    found = Memo(memo).readings(keys.values())
    return {name: found[key].target_logprob.tolist() for name, key in keys.items() if key in found}


def read(models: Mapping[str, Path], asked: Tokens, settings: RunSettings, root: Path) -> None:
    """Ask models what they say, in a child that loads them and ends; the memo holds it afterwards."""

    def work() -> None:
        for name, folder in models.items():
            list(read_all(folder, [asked], How(settings, root, f"view {name}")))

    try:
        bounded(work, PATIENCE)
    except Ended as error:
        raise Refused(f"{' and '.join(models)} could not read this text: {error}. Is there memory for them?") from error
