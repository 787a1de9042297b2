"""Models from this machine: the shipped pair, a transformers folder, no model at all.

An origin is a function from an empty folder to the card of the model it has put there.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pipeline.core.methods import find
from pipeline.errors import Refused
from pipeline.kinds.origin import BACKENDS, FOUR_BITS, Card, Dtype, Engine, Origin, origin
from pipeline.model.folder import CAUSAL, NETWORK, TOKENIZER_FILES, finish, network_of

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")


def engine_backend(arguments: Mapping[str, Any]) -> str:
    """What runs a model folder."""
    return BACKENDS[arguments.get("engine", "transformers")]


def engine_gives(arguments: Mapping[str, Any]) -> frozenset[str]:
    """What a model folder gives depends on the engine that it is run with; in four bits nothing of it learns."""
    learns = arguments.get("dtype") != FOUR_BITS
    return frozenset(find("backend", engine_backend(arguments)).traits["gives"]) - (set() if learns else {"gradients"})


@origin(
    gives=engine_gives,
    backend=engine_backend,
    network=CAUSAL,
    files=lambda arguments: [f"data/embedded/{arguments['name']}"],
    mend="run `git checkout data/embedded`",
)
def embedded(*, name: Literal["teacher", "base"], engine: Engine = "transformers") -> Origin:
    """A model that ships with this repository, in `data/embedded/`.

    Paper: none.
    Differs: nothing.
    """
    return folder(path=f"data/embedded/{name}", engine=engine)


def folder_network(arguments: Mapping[str, Any]) -> str:
    """What a folder's form says that its places are."""
    return network_of(Path(arguments["path"]))


def folder_backend(arguments: Mapping[str, Any]) -> str:
    """What runs a folder, which may be a classifier's."""
    return engine_backend(arguments) if folder_network(arguments) == CAUSAL else NETWORK


@origin(
    gives=engine_gives,
    backend=folder_backend,
    network=folder_network,
    files=lambda arguments: [arguments["path"]],
    mend="correct `path`",
)
def folder(*, path: str, dtype: Dtype | Literal["nf4"] = "float32", engine: Engine = "transformers") -> Origin:
    """A transformers folder: safetensors, config, fast tokenizer, chat template. `engine` runs it, in this process.

    With `dtype: nf4` its linear layers are in four bits while it runs: a teacher in a third of bfloat16's memory.
    Paper: none; `nf4` is Dettmers et al. 2023 (QLoRA, arXiv 2305.14314), without the adapters.
    Differs: nothing.
    """

    def fill(out: Path) -> Card:
        source = Path(path)
        if dtype == FOUR_BITS and (engine != "transformers" or network_of(source) != CAUSAL):
            raise Refused(
                f"{source}: `dtype: {dtype}` is for a language model that transformers runs; write another dtype"
            )
        if not (source / "config.json").exists():
            raise Refused(f"{source} is not a transformers folder: it has no config.json")
        if not list(source.glob("*.safetensors")):
            raise Refused(
                f"{source} has no *.safetensors. Save the model with `save_pretrained(...)`; pickles are not read."
            )
        for pattern in (*WEIGHTS, *TOKENIZER_FILES):
            for file in source.glob(pattern):
                shutil.copyfile(file, out / file.name)
        try:
            return finish(out, dtype, engine)
        except Refused as error:
            raise Refused(f"{source}: {error}") from error

    return fill


@origin(gives=("generate",), backend="recorded.solutions", network=())
def solutions() -> Origin:
    """No model: the answers that came with the prompts (`recorded.solutions`).

    Paper: none.
    Differs: nothing.
    """
    return lambda out: {"backend": "recorded.solutions", "model_id": "recorded.solutions"}
