"""Models from elsewhere: served behind an endpoint, or fetched from the Hugging Face hub at a fixed commit."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import NonNegativeFloat, PositiveInt, StringConstraints

from pipeline.errors import Refused, TryAgain
from pipeline.kinds.origin import Card, Dtype, Engine, Origin, origin
from pipeline.model.chat import Chat
from pipeline.model.folder import NETWORK, TOKENIZER_FILES
from pipeline.origins.local import WEIGHTS, engine_backend, engine_gives, folder
from pipeline.tables import ids

Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]


def gives(arguments: Mapping[str, Any]) -> frozenset[str]:
    """What a served model gives: answers, what its entry says that its server can, and a form."""
    declared = {
        "logprobs": {"token_logprobs"},
        "structured": {"structured"},
        "read": {"read", "topk_logprobs"},
        "tokenizer": {"form"},
    }
    return frozenset({"generate"}.union(*(given for key, given in declared.items() if arguments.get(key))))


@origin(gives=gives, backend="http.openai", network=(), served=True)
def endpoint(
    *,
    model: str,
    version: str,
    api: Literal["chat", "completions"] = "chat",
    logprobs: bool = False,
    n: PositiveInt = 1,
    structured: bool = False,
    read: bool = False,
    tokenizer: str | None = None,
    context: PositiveInt | None = None,
    price_in: NonNegativeFloat | None = None,
    price_out: NonNegativeFloat | None = None,
) -> Origin:
    """A model behind an OpenAI-compatible endpoint, known by its declared name and version.

    Its address is not part of it and stands in `run.endpoints`. `tokenizer` is a folder. With it, `logprobs` asks for
    token ids too, prompts are counted before they are sent, and `api: completions` renders them here. `n` samples of a
    prompt are one request, where that makes the prompt cheaper; an answer's tokens are an equal share if the server
    tells only their sum. `structured` holds the server to a form (`response_format`, vLLM's `structured_outputs`),
    `read` reads given texts (vLLM's `prompt_logprobs`). `context` is the most tokens of a prompt and its answer, if the
    server does not say it. Prices are US dollars per million tokens.

    Paper: none.
    Differs: nothing.
    """
    if (price_in is None) != (price_out is None):
        raise Refused("remote.endpoint takes price_in and price_out together, or neither")
    if tokenizer is None and (api == "completions" or read):
        what = "read: true" if read else "api: completions"
        raise Refused(f"remote.endpoint with `{what}` needs `tokenizer`, the folder of the model's tokenizer")

    def fill(out: Path) -> dict[str, Any]:
        chat = None
        if tokenizer is not None:
            (out / "tokenizer").mkdir()
            for name in TOKENIZER_FILES:
                if (Path(tokenizer) / name).exists():
                    shutil.copyfile(Path(tokenizer) / name, out / "tokenizer" / name)
            chat = Chat(out / "tokenizer")
        return {
            "backend": "http.openai",
            "model_id": f"{model}@{version}",
            "model": model,
            "version": version,
            "api": api,
            "chat": ids.digest("chat", chat.tokenizer_hash, chat.template_hash)
            if chat and api == "completions"
            else None,
            "logprobs": logprobs,
            "token_ids": logprobs and tokenizer is not None,
            "n": n,
            "structured": structured,
            "read": read,
            "context": context,
            "price_in": price_in,
            "price_out": price_out,
        }

    return fill


@origin(gives=engine_gives, backend=lambda arguments: (engine_backend(arguments), NETWORK), fetched="repo")
def hub(
    *,
    repo: str,
    revision: Commit,
    dtype: Dtype = "float32",
    engine: Engine = "transformers",
    trust_remote_code: Literal[False] = False,
) -> Origin:
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
        return folder(path=snapshot, dtype=dtype, engine=engine)(out)

    return fill
