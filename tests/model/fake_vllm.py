"""A package `vllm` whose engine answers with the tokens that it was asked, backwards: what stands in for the real one
where it cannot be installed. It has the names that ours uses, and no others."""

from __future__ import annotations

from pathlib import Path

FILES = {
    "__init__.py": """
import json, os, sys
from types import SimpleNamespace as Some
print("vLLM says hello")          # where nobody but the parent may write

class SamplingParams:
    def __init__(self, **given):
        self.__dict__ = given
        assert given["output_kind"] == "final" and given["flat_logprobs"]

class EngineArgs:
    def __init__(self, **given):
        self.__dict__ = given

class LLMEngine:
    @classmethod
    def from_engine_args(cls, args):
        if "absent" in args.model:
            raise RuntimeError("no such weights")
        made = cls()
        made.model_config = Some(
            max_model_len=args.__dict__.get("max_model_len", 64), hf_text_config=Some(max_position_embeddings=64),
            get_vocab_size=lambda: 32,
        )
        made.asked, made.args = {}, args.__dict__
        made.engine_core = Some(shutdown=lambda timeout: None)
        assert args.enable_chunked_prefill is False
        return made

    def add_request(self, id, prompt, params):
        if params.__dict__.get("temperature") == 9:
            raise ValueError("temperature is too high")
        self.asked[id] = prompt, params

    def step(self):
        if not self.asked:
            return []
        id = next(iter(self.asked))
        (prompt, params) = self.asked.pop(id)
        tokens = prompt["prompt_token_ids"]
        if tokens[0] == 13:
            raise RuntimeError("out of memory")
        if tokens[0] == 14:
            os._exit(9)
        shown = [image.size[0] for image in prompt.get("multi_modal_data", {}).get("image", ())]
        made = [*tokens[::-1], *shown][: params.max_tokens]
        flat = Some(logprobs=[-0.5] * len(made))
        read = getattr(params, "prompt_logprobs", None)
        listed = [(t, *range(read)) for t in tokens[1:]] if read is not None else None
        return [
            Some(finished=False, request_id="other"),
            Some(
                finished=True, request_id=id, prompt_token_ids=tokens,
                outputs=[Some(finish_reason="stop", token_ids=made, logprobs=None if read is not None else flat)],
                prompt_logprobs=None if listed is None else Some(
                    logprobs=[-float(1 + k) for row in listed for k in range(len(row))],
                    token_ids=[t for row in listed for t in row],
                ),
            ),
        ]

    def abort_request(self, ids):
        for id in ids:
            self.asked.pop(id, None)
""",
    "platforms.py": "from types import SimpleNamespace\ncurrent_platform = SimpleNamespace(is_cpu=lambda: True)\n",
    "sampling_params.py": (
        "class RequestOutputKind:\n    FINAL_ONLY = 'final'\n\n"
        "class StructuredOutputsParams:\n    def __init__(self, json, regex, choice):\n        self.choice = choice\n"
    ),
    "inputs/__init__.py": "",
    "inputs/engine.py": "def tokens_input(tokens):\n    return {'prompt_token_ids': tokens}\n",
    "v1/__init__.py": "",
    "v1/engine/__init__.py": "",
    "v1/engine/exceptions.py": "class EngineDeadError(Exception):\n    pass\n",
}


def write(folder: Path) -> Path:
    """The package in a folder; returns the folder, for PYTHONPATH."""
    for name, text in FILES.items():
        (folder / "vllm" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "vllm" / name).write_text(text, "utf-8")
    return folder
