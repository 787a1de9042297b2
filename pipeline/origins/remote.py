"""Models from elsewhere: served behind an endpoint, or fetched from the Hugging Face hub at a fixed commit."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import NonNegativeFloat, StringConstraints

from pipeline.chat import Chat
from pipeline.errors import Refused, TryAgain
from pipeline.models import TOKENIZER_FILES, Card
from pipeline.origins.local import WEIGHTS, Dtype, Origin, folder
from pipeline.plugins import origin
from pipeline.protocol import LOCAL

Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]


def gives(arguments: Mapping[str, Any]) -> frozenset[str]:
    """What a served model gives: answers, and their tokens' log-probabilities if they are asked for."""
    return frozenset({"generate", "token_logprobs"} if arguments.get("logprobs") else {"generate"})


@origin(gives=gives)
def endpoint(
    *,
    model: str,
    version: str,
    logprobs: bool = False,
    tokenizer: str | None = None,
    price_in: NonNegativeFloat | None = None,
    price_out: NonNegativeFloat | None = None,
) -> Origin:
    """A model behind an OpenAI-compatible endpoint, known by its declared name and version.

    Its address is not part of it and stands in `run.endpoints`. `tokenizer` is a folder; with `logprobs` the token
    ids are asked for too. Prices are US dollars per million tokens.

    Paper: none.
    Differs: nothing.
    """
    if (price_in is None) != (price_out is None):
        raise Refused("remote.endpoint takes price_in and price_out together, or neither")

    def fill(out: Path) -> dict[str, Any]:
        if tokenizer is not None:
            (out / "tokenizer").mkdir()
            for name in TOKENIZER_FILES:
                if (Path(tokenizer) / name).exists():
                    shutil.copyfile(Path(tokenizer) / name, out / "tokenizer" / name)
            Chat(out / "tokenizer")
        return {
            "backend": "http.openai",
            "model_id": f"{model}@{version}",
            "model": model,
            "version": version,
            "logprobs": logprobs,
            "token_ids": logprobs and tokenizer is not None,
            "price_in": price_in,
            "price_out": price_out,
        }

    return fill


@origin(gives=LOCAL)
def hub(*, repo: str, revision: Commit, dtype: Dtype = "float32", trust_remote_code: Literal[False] = False) -> Origin:
    """A model of the Hugging Face hub at one commit: safetensors, config, tokenizer, and never its code.

    The hub is asked only where HF_HUB_OFFLINE=0 is set; without it the local cache must hold the commit.

    Paper: none.
    Differs: nothing.
    """

    def fill(out: Path) -> Card:
        import huggingface_hub
        from huggingface_hub import constants, errors

        known = f"{repo} at {revision}"
        try:
            snapshot = huggingface_hub.snapshot_download(
                repo, revision=revision, allow_patterns=[*WEIGHTS, *TOKENIZER_FILES]
            )
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
            raise Refused(
                f"the hub has no {known}, or does not show it to you: check `repo` and `revision`; a gated or private "
                f"repository needs an accepted licence and HF_TOKEN ({type(error).__name__})"
            ) from error
        except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
            if constants.HF_HUB_OFFLINE:
                raise Refused(
                    f"{known} is not in the local cache, and the hub is not asked unless you say so: run this once "
                    f"with HF_HUB_OFFLINE=0 in the environment, or use local.folder with a folder you have"
                ) from error
            raise TryAgain(f"the hub cannot be reached for {known}: {error}") from error
        except errors.HfHubHTTPError as error:
            raise TryAgain(f"the hub failed to give {known}: {error}") from error
        return folder(path=snapshot, dtype=dtype)(out)

    return fill
