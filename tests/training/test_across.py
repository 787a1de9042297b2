"""A teacher of other tokens: where both come together, what no longer counts, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import tokenizers  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers  # noqa: E402

from pipeline.contracts import RESPONSES  # noqa: E402
from pipeline.core.methods import find  # noqa: E402
from pipeline.core.run import How  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.kinds.objective import OtherTeacher, View  # noqa: E402
from pipeline.model.chat import Chat  # noqa: E402
from pipeline.model.pieces import pieces  # noqa: E402
from pipeline.networks.language import causal  # noqa: E402
from pipeline.origins.fresh import SPECIAL, TEMPLATE  # noqa: E402
from pipeline.tables import ids, parquet  # noqa: E402
from pipeline.tables.parquet import Scan  # noqa: E402
from pipeline.training.across import Across, by_bytes, by_position, shared  # noqa: E402
from pipeline.training.batches import POSITIONS  # noqa: E402
from pipeline.training.chunks import BLOCK  # noqa: E402
from pipeline.training.places import places  # noqa: E402
from pipeline.training.rows import Rows  # noqa: E402
from tests.training.test_fit import EXAMPLES, FORK, data, losses, one_thread, run, weights  # noqa: E402, F401

TEXTS = "responses/train"
ULD = {"use": "across.uld"}
GOLD, GRAPH = {"use": "across.gold"}, {"use": "graph.on_logits", "top": 16}
FULL = {"use": "across.gold", "beta": 0.0, "matched": 1.0, "unmatched": 0.0}


def texts(folder: Path, said: Any = lambda i: f"{i}#{i * 3 + 100}") -> None:
    """The responses that the examples of `data` were packed from."""
    rows = [
        {
            "response_id": ids.digest("response", i), "request_id": ids.digest("request", i),
            "prompt_id": ids.digest("prompt", i // 2), "domain": "add", "content": said(i),
            "messages": [{"role": "user", "content": f"add {i * 37 % 100:03d} {i * 11:03d}"}],
            "entry": "teacher", "model_id": "m", "sample": i, "seed": i, "finish_reason": "stop", "attempts": 1,
        }
        for i in range(24)
    ]  # fmt: skip
    shutil.rmtree(folder / TEXTS, ignore_errors=True)
    parquet.write(RESPONSES, folder / TEXTS, 2, [RESPONSES.rows(rows)])


def permuted(given: Path, out: Path) -> None:
    """The same model with its tokens numbered otherwise."""
    shutil.copytree(given, out)
    spec = json.loads((out / "tokenizer.json").read_text("utf-8"))
    new = np.random.default_rng(0).permutation(len(spec["model"]["vocab"]))
    spec["model"]["vocab"] = {token: int(new[i]) for token, i in spec["model"]["vocab"].items()}
    for token in spec["added_tokens"]:
        token["id"] = int(new[token["id"]])
    spec["added_tokens"].sort(key=lambda token: token["id"])
    (out / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
    held = load_file(out / "model.safetensors")
    for name in [name for name in held if name.endswith(("wte.weight", "lm_head.weight"))]:
        moved = held[name].clone()
        moved[torch.from_numpy(new)] = held[name][: len(new)]
        held[name] = moved
    save_file(held, out / "model.safetensors", {"format": "pt"})
    for name in ("config.json", "generation_config.json"):
        told = json.loads((out / name).read_text("utf-8"))
        told |= {key: int(new[told[key]]) for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in told}
        (out / name).write_text(json.dumps(told), "utf-8")


def merging(out: Path, said: list[str]) -> None:
    """A model with random weights over byte-level tokens of several characters."""
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=list(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    core.train_from_iterator(said, trainer)
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        chat_template=TEMPLATE.replace("WIDTH", "0"),
    ).save_pretrained(out)  # fmt: skip
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=core.get_vocab_size(), n_embd=32, n_layer=1, n_head=2, n_positions=128, bos_token_id=1,
        eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(out)


@pytest.fixture
def others(data: Path) -> Path:  # noqa: F811
    """Beside the shipped pair: the base and the teacher with other ids, and a model of longer tokens."""
    for name in ("base", "teacher"):
        permuted(Path("data/embedded") / name, data.parent / f"other_{name}")
    merging(data.parent / "merging", [f"{i}#{i * 3 + 100} add {i * 37 % 100:03d}" for i in range(200)])
    for name in ("other_base", "other_teacher", "merging"):
        run(data, "acquire", name, {"use": "local.folder", "path": str(data.parent / name)}, {})
    texts(data)
    return data


def distilled(
    folder: Path, name: str, teacher: str, *objectives: dict[str, Any], steps: int = 200, **changed: Any
) -> Path:
    given = {
        "of": "examples/some", "student": "base", "teacher": teacher, "epochs": 2, "batch_rows": 8, "seed": 17,
        "warmup_steps": 0, "objectives": list(objectives), "texts": TEXTS, **changed,
    }  # fmt: skip
    inputs = {
        "rows": ("examples/some",), "gates": ("gates/examples/some",), "student": ("models/base",),
        "teacher": (f"models/{teacher}",), **({"texts": (TEXTS,)} if given["texts"] else {}),
    }  # fmt: skip
    return run(folder, "distill", name, given, inputs, checkpoint_steps=steps)


def test_the_same_model_with_other_ids_teaches_nothing(others: Path) -> None:
    """ULD is 0 where both are one, however their tokens are numbered; and above it for another teacher."""
    itself, taught = (losses(distilled(others, f"by_{name}", name, ULD))[0] for name in ("other_base", "other_teacher"))
    assert itself < 1e-5 < 0.1 < taught


def test_a_full_match_at_beta_0_is_forward_kl(others: Path) -> None:
    """But for the four special tokens that nobody says: the end of an answer has its match."""
    crossed = losses(distilled(others, "crossed", "other_teacher", FULL))
    plain = losses(distilled(others, "plain", "teacher", {"use": "divergence.forward"}, texts=None))
    beside = losses(distilled(others, "beside", "teacher", FULL))
    assert crossed[0] == pytest.approx(plain[0], rel=1e-3) and crossed == pytest.approx(beside, rel=1e-4)
    assert crossed == pytest.approx(plain, rel=1e-2)


def test_pieces_of_a_group_spell_the_same_and_groups_are_all_of_the_answer(others: Path, tmp_path: Path) -> None:
    """A teacher of longer tokens: there are groups of several of the student's."""
    rows = Rows.of(Scan(EXAMPLES, (others / "examples/some",)), tmp_path / "rows.arrow")
    forms = [others / "models" / name / "tokenizer" for name in ("base", "merging")]
    own, other = (pieces(Chat(form)) for form in forms)
    across = Across(rows, Scan(RESPONSES, (others / TEXTS,)), *forms, causal())
    table = rows.take(range(24))
    found = across.beside(places(table), table)
    assert found.beside is not None
    longest = 0
    for a, b, c, d in found.beside.groups["bytes"].tolist():
        said = b"".join(own[i] for i in found.target_N[a:b].tolist())
        heard = b"".join(other[i] for i in found.beside.target_M[c:d].tolist())
        assert said == heard and b > a and d > c
        assert len(set(found.example_N[a:b].tolist())) == 1
        longest = max(longest, b - a)
    groups = found.beside.groups["bytes"]
    assert longest > 1 and sum(b - a for a, b, _, _ in groups.tolist()) == len(found.target_N)
    assert sum(d - c for _, _, c, d in groups.tolist()) == len(found.beside.target_M)
    assert found.counts["bytes"] == len(groups) and groups[-1, 1] == len(found.target_N)


def test_of_a_conversation_no_group_is_of_two_answers(others: Path, tmp_path: Path) -> None:
    """Where a teacher needs fewer tokens for the first answer, the second still begins with the second."""
    forms = [others / "models" / name / "tokenizer" for name in ("base", "merging")]
    own, other = map(Chat, forms)
    asked = [
        {"role": "user", "content": "add 1 2"}, {"role": "assistant", "content": "3#103"},
        {"role": "user", "content": "add 37 7"},
    ]  # fmt: skip
    packed = own.example(asked, "7#121", answers="every")
    row = Scan(EXAMPLES, (others / "examples/some",)).pylist()[0] | {
        "token_ids": packed.token_ids, "spans": [{"start": a, "end": b} for a, b in packed.spans],
    }  # fmt: skip
    response = Scan(RESPONSES, (others / TEXTS,)).pylist()[0] | {
        "response_id": row["response_ids"][0], "messages": asked, "content": "7#121",
    }  # fmt: skip
    parquet.write(EXAMPLES, tmp_path / "rows", 1, [EXAMPLES.rows([row])])
    parquet.write(RESPONSES, tmp_path / "texts", 1, [RESPONSES.rows([response])])
    rows = Rows.of(Scan(EXAMPLES, (tmp_path / "rows",)), tmp_path / "rows.arrow")
    across = Across(rows, Scan(RESPONSES, (tmp_path / "texts",)), *forms, causal())
    table = rows.take([0])
    found = across.beside(places(table), table)
    assert found.beside is not None
    sizes = [end - start for start, end in packed.spans]
    heard = [end - start for start, end in other.example(asked, "7#121", answers="every").spans]
    assert len(sizes) == len(heard) == 2 and heard[0] < sizes[0] and len(found.target_N) == sum(sizes)
    for by, groups in found.beside.groups.items():
        turns = [(a >= sizes[0], b > sizes[0], c >= heard[0], d > heard[0]) for a, b, c, d in groups.tolist()]
        assert {len(set(turn)) for turn in turns} == {1}, by
        assert [sizes[0], heard[0]] in groups[:, [0, 2]].tolist()


@pytest.mark.parametrize("objectives", [(ULD,), (GOLD,), ({**GOLD, "hybrid": False},), (ULD, GRAPH)])
def test_a_student_learns_from_longer_tokens_and_a_step_is_the_same_however_it_is_cut(
    others: Path, objectives: tuple[dict[str, Any], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ({"use": "supervised.cross_entropy"}, *objectives)
    whole = losses(distilled(others, "whole", "merging", *both))
    monkeypatch.setitem(POSITIONS, "cpu", 64)
    monkeypatch.setitem(BLOCK, "cpu", 3)
    cut = losses(distilled(others, "cut", "merging", *both))
    assert cut == pytest.approx(whole, rel=1e-3) and whole[-1] < whole[0]


def test_what_stands_before_in_a_group_is_learnt_too() -> None:
    before = torch.tensor([-1.0], requires_grad=True)
    view = View(
        student_NV=torch.zeros(1, 3), weight_N=torch.ones(1),
        other=OtherTeacher(torch.zeros(1, 3), torch.zeros(1), before, torch.arange(3)),
    )  # fmt: skip
    loss = find("objective", "across.gold").factory(beta=0.0, hybrid=True)(view)
    # KL(p || e^-1 p), whose derivative by the exponent is -1.
    assert loss.value_N.item() == pytest.approx(1.0)
    assert torch.autograd.grad(loss.value_N.sum(), before)[0].item() == pytest.approx(-1.0)


CUTS = [
    ([b"ab", b"c", b""], [b"a", b"bc", b""], [[0, 2, 0, 2], [2, 3, 2, 3]]),
    ([b"a", b"b", b"c"], [b"abc"], [[0, 3, 0, 1]]),
    ([b"a", b"b"], [b"a", b"b"], [[0, 1, 0, 1], [1, 2, 1, 2]]),
    # The bytes of one letter.
    ([b"\xc3", b"\xa9", b"x"], [b"\xc3\xa9", b"x"], [[0, 2, 0, 1], [2, 3, 1, 2]]),
    ([], [], []),
]


@pytest.mark.parametrize(("own", "other", "expected"), CUTS)
def test_groups_close_where_both_end_at_one_byte(own: list[bytes], other: list[bytes], expected: list) -> None:
    assert by_bytes(own, other).tolist() == expected
    swapped = [[c, d, a, b] for a, b, c, d in expected]
    assert by_bytes(other, own).tolist() == swapped
    assert by_position(own, other).tolist() == [[i, i + 1, i, i + 1] for i in range(min(len(own), len(other)))]


def test_outcomes_that_spell_the_same_are_one_however_they_are_written(others: Path) -> None:
    """Of two that do, the first; a special token has none."""
    assert shared([b"", b"a", b"b", b"a"], [b"b", b"", b"a", b"a", b"c"]).tolist() == [2, -1, 1, -1, -1]
    found = pieces(Chat(others / "models/merging/tokenizer"))
    assert found[:5] == [b""] * 5 and {bytes([i]) for i in range(256)} <= set(found)


def test_a_killed_training_across_tokenizers_goes_on_to_the_same_bytes(others: Path) -> None:
    objectives = ({"use": "supervised.cross_entropy"}, ULD, GOLD, GRAPH)
    whole = distilled(others, "whole", "merging", *objectives, steps=2)

    def killed() -> None:
        real = How.progress

        def progress(self: How, done: int, total: int, note: object = "") -> None:
            real(self, done, total, note)
            if done == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        How.progress = progress  # type: ignore[method-assign]
        torch.set_num_threads(1)
        distilled(others, "student", "merging", *objectives, steps=2)

    process = FORK.Process(target=killed)
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    shutil.rmtree(others / ".runs" / "locks", ignore_errors=True)
    resumed = distilled(others, "student", "merging", *objectives, steps=2)
    assert weights(resumed) == weights(whole) and losses(resumed) == losses(whole)


def test_another_tokenizer_is_refused_by_what_cannot_cross(others: Path) -> None:
    with pytest.raises(Refused, match=r"was cut with another tokenizer \(.{8}\) than the teacher's"):
        distilled(others, "kd", "other_teacher", {"use": "divergence.forward"}, texts=None)
    with pytest.raises(Refused, match=r"was cut with another tokenizer \(.{8}\) than the teacher's"):
        distilled(others, "both", "other_teacher", ULD, {"use": "divergence.forward"})


def test_texts_that_are_others_are_refused_with_the_example(others: Path) -> None:
    texts(others, lambda i: "5" if i == 3 else f"{i}#{i * 3 + 100}")
    with pytest.raises(Refused, match=r"the tokens of the student spell '3#109' and those of the teacher '5'"):
        distilled(others, "student", "merging", ULD)
    rows = [row for row in Scan(RESPONSES, (others / TEXTS,)).pylist() if row["sample"] != 3]
    shutil.rmtree(others / TEXTS)
    parquet.write(RESPONSES, others / TEXTS, 2, [RESPONSES.rows(rows)])
    with pytest.raises(Refused, match=r"was made of the response .*, which `texts` does not hold"):
        distilled(others, "student", "merging", ULD)
