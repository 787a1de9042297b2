"""Export: files that `datasets`, transformers, TRL and llama.cpp's own package read again, with a card."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

torch = pytest.importorskip("torch")

import transformers  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402

from pipeline.contracts import DROPS, EVALS, PROMPTS, RESPONSES, SELECTIONS, SIGNALS  # noqa: E402
from pipeline.core.driver import run_instance  # noqa: E402
from pipeline.core.run import How  # noqa: E402
from pipeline.core.settings import RunSettings  # noqa: E402
from pipeline.core.stage import Instance  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.kinds.backend import GenerateRequest, Sampling, open_model  # noqa: E402
from pipeline.laws import exporter as laws  # noqa: E402
from pipeline.origins.gguf import convert  # noqa: E402
from pipeline.plan.faults import PlanError  # noqa: E402
from pipeline.plan.reading import load  # noqa: E402
from pipeline.plan.resolve import resolve  # noqa: E402
from pipeline.stages import export  # noqa: E402
from pipeline.tables import ids, parquet  # noqa: E402
from tests.vllm_server import vllm_serve  # noqa: E402

ROOT = Path(__file__).parents[2]
OF, BY = "responses/train/teacher", "selections/responses/train/teacher/best"
SOURCES = {"acquire.teacher": {"use": "local.folder", "licence": "MIT", "terms": None}}


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def responses() -> list[dict[str, Any]]:
    """Two answers to each of three prompts: the first right, the second wrong."""
    rows = []
    for n, said in enumerate(("plain", "two\nlines", 'quotes " and \u2028')):
        prompt = ids.digest("p", n)
        rows += [
            {
                "response_id": ids.digest("r", n, sample), "request_id": "q", "prompt_id": prompt, "domain": "d",
                "messages": [message("system", "Be short."), message("user", said)], "verifier": "text.exact",
                "reference": "yes", "entry": "teacher", "model_id": "m", "sample": sample, "seed": 0,
                "content": ("yes", "no")[sample], "reasoning": f"as {said}", "answer": ("yes", "no")[sample],
                "finish_reason": "stop", "attempts": 1,
            }
            for sample in range(2)
        ]  # fmt: skip
    return rows


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = responses()
    folder = tmp_path / "data"
    parquet.write(RESPONSES, folder / OF, 2, [RESPONSES.rows(rows)])
    kept = [
        {"response_id": r["response_id"], "prompt_id": r["prompt_id"], "domain": "d", "kept": r["sample"] == 0,
         "weight": 1.0 - r["sample"], "reason": "", "tokens": 1}
        for r in rows
    ]  # fmt: skip
    parquet.write(SELECTIONS, folder / BY, 2, [SELECTIONS.rows(kept)])
    pool = [
        {"prompt_id": r["prompt_id"], "messages": r["messages"], "domain": "d", "source": "s", "group": r["prompt_id"],
         "reference": "yes"}
        for r in rows[::2]
    ]  # fmt: skip
    parquet.write(PROMPTS, folder / "prompts" / "train" / "given", 2, [PROMPTS.rows(pool)])
    drop = {"prompt_id": pool[0]["prompt_id"], "rule": "exact", "evidence": "twin"}
    parquet.write(DROPS, folder / "drops" / "train", 1, [DROPS.rows([drop])])
    parquet.write(SIGNALS, folder / "signals" / "x" / "teacher", 1, laws.signals())
    (folder / "gates" / "signals" / "x" / "teacher").mkdir(parents=True)
    return folder


def judged(data: Path, model: str) -> None:
    item = {"task": "bench", "domain": "d", "model": model, "measure": "accuracy", "finish_reason": "stop"}
    rows = [{**item, "item_id": str(n), "prompt_id": str(n), "metric": float(n > 0)} for n in range(4)]
    parquet.write(EVALS, data / "evals" / model, 1, [EVALS.rows(rows)])


def exported(data: Path, use: str, of: str = OF, by: str = BY, **given: Any) -> Path:
    """The folder of an entry of export."""
    params = export.Params.model_validate({"of": of, "by": by, "use": use, **given})
    folders = {"prompts/train": "prompts/train/given"}
    inputs = {argument: (folders.get(s.folder, s.folder),) for argument, s in params.inputs().items()}
    instance = Instance("export", "mine", params, inputs, "exports/mine", "", {"sources": SOURCES})
    (data / "plan" / "export").mkdir(parents=True, exist_ok=True)
    (data / "plan" / "export" / "mine.json").write_text(instance.to_json(), "utf-8")
    run_instance(instance, RunSettings(), data, data.parent)
    return data / "exports" / "mine"


def loaded(folder: Path, **given: Any) -> Any:
    """What the library `datasets`, which vLLM's environment does not have, reads of a folder."""
    import datasets

    cache = folder.parent / parquet.folder_digest(folder)
    return datasets.load_dataset(str(folder), split="train", cache_dir=str(cache), **given)


def head(folder: Path) -> dict[str, Any]:
    _, top, _ = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(top)


# In the order of parts, and of prompts in them.
ENDS = [r["messages"] for r in sorted(responses(), key=lambda r: (ids.part_of(r["prompt_id"], 2), r["prompt_id"]))][::2]
ANSWER = message("assistant", "yes")
READ_AGAIN: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "trl.sft": ({}, [{"messages": [*turns, ANSWER]} for turns in ENDS]),
    "trl.prompt_completion": ({}, [{"prompt": turns, "completion": [ANSWER]} for turns in ENDS]),
    "trl.dpo": (
        {},
        [{"prompt": turns, "chosen": [ANSWER], "rejected": [message("assistant", "no")]} for turns in ENDS],
    ),
    "llamafactory.alpaca": (
        {},
        [
            {"instruction": turns[1]["content"], "input": "", "output": "yes", "system": "Be short.", "history": []}
            for turns in ENDS
        ],
    ),
    "llamafactory.sharegpt": (
        {"reasoning": "inline"},
        [
            {
                "conversations": [
                    {"from": "system", "value": "Be short."},
                    {"from": "human", "value": turns[1]["content"]},
                    {"from": "gpt", "value": f"<think>\nas {turns[1]['content']}\n</think>\n\nyes"},
                ]
            }
            for turns in ENDS
        ],
    ),
    "axolotl.chat": (
        {},
        [
            {"messages": [*({**turn, "training": False} for turn in turns), {**ANSWER, "training": True}]}
            for turns in ENDS
        ],
    ),
}


@pytest.mark.parametrize("use", READ_AGAIN)
def test_datasets_reads_every_row_as_it_was(data: Path, use: str) -> None:
    given, rows = READ_AGAIN[use]
    folder = exported(data, use, **given)
    assert loaded(folder).to_list() == rows
    assert head(folder)["size_categories"] == ["n<1K"]


def test_prompts_that_are_dropped_are_not_handed_over(data: Path) -> None:
    rows = loaded(exported(data, "trl.prompts", "prompts/train", "drops/train"))
    assert len(rows) == 2 and set(rows["reference"]) == {"yes"}


def test_thoughts_have_a_field_of_their_own_or_are_counted(data: Path) -> None:
    rows = loaded(exported(data, "trl.sft", reasoning="field"))
    assert all(turns[-1]["reasoning_content"] == f"as {turns[1]['content']}" for turns in rows["messages"])
    assert "- 3: thoughts, which another `reasoning` would keep" in (exported(data, "trl.sft") / "README.md").read_text(
        "utf-8"
    )


def test_a_card_names_licences_and_terms(data: Path) -> None:
    folder = exported(data, "hub.dataset", licence="cc-by-4.0", dropped=True)
    assert head(folder)["license"] == "cc-by-4.0" and len(loaded(folder)) == 6
    text = (folder / "README.md").read_text("utf-8")
    assert "| `acquire.teacher` | `local.folder` | MIT | not said |" in text
    assert str(data) not in text


def test_signals_are_lists_beside_the_labels(data: Path) -> None:
    rows = loaded(exported(data, "signals.topk", "signals/x/teacher", "gates/signals/x/teacher")).to_list()
    assert [row["labels"] for row in rows] == [[-100, -100, -100, 8], [-100, -100, 7, 8]]
    for row in rows:
        learnt = sum(label != -100 for label in row["labels"])
        assert [len(row[name]) for name in ("topk_ids", "topk_logprobs", "tail_mass")] == [learnt] * 3
        assert row["topk_ids"][0] == [8, 1] and row["topk_logprobs"][0][0] == pytest.approx(-0.6931472)


def test_trls_own_formatting_takes_the_rows(data: Path) -> None:
    formatting = pytest.importorskip("trl.data_utils", reason="TRL is no part of this environment")
    tokenizer = transformers.AutoTokenizer.from_pretrained(ROOT / "data" / "embedded" / "base")
    for use, keys in {"trl.sft": {"text"}, "trl.prompt_completion": {"prompt", "completion"},
                      "trl.dpo": {"prompt", "chosen", "rejected"}}.items():  # fmt: skip
        row = loaded(exported(data, use))[0]
        assert formatting.is_conversational(row)
        assert set(formatting.apply_chat_template(row, tokenizer)) == keys


@pytest.fixture
def student(data: Path) -> Path:
    """The embedded base as a model of the graph."""
    folder = data / "models" / "kd"
    shutil.copytree(ROOT / "data" / "embedded" / "base", folder)
    from pipeline.model.folder import finish

    (folder / "model.json").write_text(json.dumps(finish(folder, "float32")), "utf-8")
    (folder / "README.md").write_text("# kd\n\nA student.\n", "utf-8")
    judged(data, "kd")
    return folder


def answered(data: Path, model: Path, questions: list[str]) -> list[str | None]:
    """The greedy answers of a model of the graph."""
    asked = [GenerateRequest(str(n), str(n), [message("user", q)], 0, 0) for n, q in enumerate(questions)]
    with open_model(model, How(RunSettings(), data, "x")) as opened:
        found = {
            a.request_id: a.content for a in opened.generate(asked, Sampling(temperature=0.0, top_p=1.0, max_tokens=12))
        }
    return [found[request.request_id] for request in asked]


def test_transformers_answers_as_the_student_does(data: Path, student: Path) -> None:
    folder = exported(data, "hub.model", "models/kd", "evals/kd")
    assert not [name for name in ("model.json", "tokenizer") if (folder / name).exists()]
    text = (folder / "README.md").read_text("utf-8")
    assert "| bench | all | accuracy | 4 | 0.750 | 0.301 to 0.954 |" in text and "## kd" in text
    net = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    questions = ["add 1 2", "mul 3 4", "sort 3 1 2"]
    ours = answered(data, student, questions)
    for question, said in zip(questions, ours, strict=True):
        turns = [message("user", question)]
        tokens = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors="pt", return_dict=True, add_special_tokens=False
        )
        out = net.generate(**tokens, max_new_tokens=12, do_sample=False)
        assert tokenizer.decode(out[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True) == said


@pytest.mark.slow_server
def test_transformers_serve_answers_with_an_exported_student(data: Path, student: Path) -> None:
    folder = exported(data, "hub.model", "models/kd", "evals/kd")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    log = (data / "log").open("w")
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
        stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    try:
        for _ in range(600):
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            assert process.poll() is None, (data / "log").read_text("utf-8")
            time.sleep(0.5)
        said = chatted(f"http://127.0.0.1:{port}/v1", str(folder), "add 1 2")
    finally:
        process.terminate()
        process.wait()
        log.close()
    assert [said] == answered(data, student, ["add 1 2"])


@pytest.mark.vllm
def test_vllm_serve_answers_with_an_exported_student(data: Path, student: Path) -> None:
    questions = ["add 1 2", "mul 3 4", "sort 3 1 2"]
    with vllm_serve(exported(data, "hub.model", "models/kd", "evals/kd"), "student") as url:
        said = [chatted(url, "student", question) for question in questions]
    assert said == answered(data, student, questions)


def chatted(url: str, model: str, question: str) -> str:
    """What a served model says, greedily."""
    asked = {"model": model, "messages": [message("user", question)], "max_tokens": 12, "temperature": 0.0}
    kind = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(asked).encode(), kind)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return str(json.loads(answer.read())["choices"][0]["message"]["content"])


@pytest.fixture
def llama(data: Path) -> Path:
    """A Llama model of a few thousand parameters, whose tokenizer llama.cpp cuts as `smollm`."""
    folder = data / "models" / "llama"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, special_tokens=special)
    tokenizer.train_from_iterator(["the answer is the answer", "an answer is here"] * 5, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", bos_token="<|im_start|>", unk_token="<|endoftext|>"
    )
    fast.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, rope_theta=50_000.0, tie_word_embeddings=True,
        eos_token_id=fast.eos_token_id,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    judged(data, "llama")
    return folder


@pytest.mark.filterwarnings("default")
def test_a_gguf_file_is_the_model_that_it_was_made_of(data: Path, llama: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the extra `real` installs gguf")
    folder = exported(data, "gguf.llama", "models/llama", "evals/llama")
    convert(folder / "model.gguf", tmp_path / "back")
    text = "the answer is 1234 héré"
    logits = []
    for place in (llama, tmp_path / "back"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(place)
        net = transformers.AutoModelForCausalLM.from_pretrained(place).eval()
        with torch.no_grad():
            logits.append(net(torch.tensor([tokenizer.encode(text)])).logits)
    torch.testing.assert_close(*logits)


def test_another_architecture_is_refused_by_name(data: Path, student: Path) -> None:
    pytest.importorskip("gguf", reason="the extra `real` installs gguf")
    with pytest.raises(Refused, match="architecture gpt2 is not written as GGUF here, only llama is"):
        exported(data, "gguf.llama", "models/kd", "evals/kd")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("use", ["llamafactory.alpaca", "llamafactory.sharegpt"])
def test_llamafactorys_own_loader_trains_on_the_answers(
    data: Path, llama: Path, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It wants an older transformers than ours, for models alone, and torchaudio, for sounds.
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    monkeypatch.setitem(sys.modules, "torchaudio", ModuleType("torchaudio"))
    hparams = pytest.importorskip("llamafactory.hparams", reason="LLaMA-Factory is no part of this environment")
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.model import load_tokenizer

    folder = exported(data, use)
    model, given, training, *_ = hparams.get_train_args(
        {
            "model_name_or_path": str(llama), "stage": "sft", "do_train": True, "finetuning_type": "full",
            "dataset": "stillhouse", "dataset_dir": str(folder), "template": "chatml", "cutoff_len": 512,
            "output_dir": str(data / "trained"), "cache_dir": str(data / "cache"), "report_to": "none", "use_cpu": True,
        }
    )  # fmt: skip
    loaded = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(loaded["tokenizer"], given)
    rows = get_dataset(template, model, given, training, stage="sft", **loaded)["train_dataset"]
    read = [loaded["tokenizer"].decode(row["input_ids"]) for row in rows]
    learnt = [loaded["tokenizer"].decode([i for i in row["labels"] if i >= 0]) for row in rows]
    assert learnt == ["yes<|im_end|>\n"] * 3
    for text, turns in zip(read, ENDS, strict=True):
        assert all(turn["content"] in text for turn in turns) and text.endswith("yes<|im_end|>\n")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("reasoning", ["drop", "inline"])
def test_axolotls_own_strategy_trains_on_the_answers(data: Path, llama: Path, reasoning: str) -> None:
    strategies = pytest.importorskip(
        "axolotl.prompt_strategies.chat_template", reason="axolotl is no part of this environment"
    )
    from axolotl.utils.dict import DictDefault

    folder = exported(data, "axolotl.chat", reasoning=reasoning)
    [told] = yaml.safe_load((folder / "datasets.yaml").read_text("utf-8"))["datasets"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    settings = DictDefault({"sequence_len": 512, "train_on_inputs": False, "datasets": [told]})
    strategy = strategies.load(tokenizer, settings, ds_cfg=DictDefault(told))
    for row, turns in zip(loaded(folder), ENDS, strict=True):
        made = strategy.tokenize_prompt(row)
        thought = f"<think>\nas {turns[1]['content']}\n</think>\n\n" if reasoning == "inline" else ""
        assert tokenizer.decode([i for i in made["labels"] if i >= 0]).strip() == f"{thought}yes<|im_end|>"
        assert all(turn["content"] in tokenizer.decode(made["input_ids"]) for turn in turns)


def test_what_is_no_text_is_refused_by_its_row(data: Path) -> None:
    rows = responses()
    image = {"name": "image", "dtype": "u8", "shape": [1], "digest": "d", "data": b"x", "uri": None}
    rows[2]["inputs"] = [image]
    parquet.write(RESPONSES, data / OF, 2, [RESPONSES.rows(rows)])
    with pytest.raises(Refused, match=f"response {rows[2]['response_id']} has inputs that are no text"):
        exported(data, "trl.sft")


def test_nothing_to_write_is_refused(data: Path) -> None:
    rows = [r | {"verifier": None} for r in responses()]
    parquet.write(RESPONSES, data / OF, 2, [RESPONSES.rows(rows)])
    with pytest.raises(Refused, match=r"export\.mine: trl\.dpo found nothing to write in data/responses"):
        exported(data, "trl.dpo")


SOUND = {"of": "responses/train", "by": "selections/responses/train/coverage", "use": "trl.sft"}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a model to rows": ({"of": "models/kd"}, "of: trl.sft reads answers: write `of: responses/<name>`"),
    "another selection": ({"by": "selections/responses/bench/x"}, "write `by: selections/responses/train/<name>`"),
    "no selection": ({"by": "selections/responses/train"}, "write `by: selections/responses/train/<name>`"),
    "nobody selects": ({"by": "selections/responses/train/none"}, "no select entry has `of: responses/train`"),
    "another model's evals": ({"of": "models/kd", "by": "evals/base", "use": "hub.model"}, "is about base, not kd"),
    "no gate": (
        {"of": "signals/coverage/other", "by": "gates/signals/coverage/other", "use": "signals.topk"},
        "data/signals/coverage/other",
    ),
    "an unknown exporter": ({"use": "trl.sfd"}, "trl.sft"),
    "no `by`": ({"by": None}, "export.mine.by"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_what_is_wrong_is_said_by_the_plan(fault: str) -> None:
    change, told = WRONG[fault]
    given = load(ROOT / "params.yaml")
    given["export"] = {"mine": {key: value for key, value in {**SOUND, **change}.items() if value is not None}}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        with pytest.raises(PlanError) as caught:
            resolve(given)
    assert told in str(caught.value)


def test_the_plan_tells_all_sources_and_heeds_terms() -> None:
    given = load(ROOT / "params.yaml")
    given["acquire"]["teacher"] |= {"licence": "Apache-2.0", "terms": "free"}
    given["export"] = {"mine": {**SOUND}}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        known = resolve(given).instances["export@mine"].known["sources"]
        assert set(known) == {"acquire.teacher", "acquire.base", "ingest.tasks", "ingest.held_out"}
        assert known["acquire.teacher"] == {"use": "local.embedded", "licence": "Apache-2.0", "terms": "free"}
        given["acquire"]["teacher"]["terms"] = "no-training"
        with pytest.raises(PlanError, match=r"export\.mine: acquire\.teacher says `terms: no-training`"):
            resolve(given)
