"""Pack: an example carries what it was made from, what it is judged by, and how good it is."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from pipeline.contracts import EXAMPLES, RESPONSES, SCORES, SELECTIONS
from pipeline.core.driver import run_instance
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance
from pipeline.errors import Refused
from pipeline.model.chat import Chat
from pipeline.model.folder import PLACES
from pipeline.stages import pack, read
from pipeline.tables import ids, parquet, sorting, tensors
from pipeline.tables.parquet import Scan

ROOT = Path(__file__).parents[2]
OF = "responses/train/teacher"


def response(name: str, content: str, answer: str | None, **changes: object) -> dict:
    return {
        "response_id": ids.digest(name), "request_id": name, "prompt_id": ids.digest("p", name),
        "messages": [{"role": "user", "content": "add 1 2"}], "domain": "add", "verifier": "text.marked",
        "reference": "3", "entry": "teacher", "model_id": "m", "sample": 0, "seed": 0, "content": content,
        "answer": answer, "finish_reason": "stop", "attempts": 1,
    } | changes  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    tokenizer = tmp_path / "models" / "base"
    tokenizer.mkdir(parents=True)
    (tokenizer / "tokenizer").symlink_to(ROOT / "data" / "embedded" / "base")
    return tmp_path


def packed(data: Path, rows: list[dict], ranks: list[int] | None = None, **more: object) -> dict[str, dict]:
    """The first response of every example -> the example."""
    parquet.write(RESPONSES, data / OF, 2, [RESPONSES.rows(rows)])
    kept = [
        {"response_id": r["response_id"], "prompt_id": r["prompt_id"], "domain": "add", "kept": r["sample"] == 0,
         "weight": float(r["sample"] == 0), "reason": "random", "tokens": 4, "rank": rank}
        for r, rank in zip(rows, ranks or [None] * len(rows), strict=True)
    ]  # fmt: skip
    parquet.write(SELECTIONS, data / "selections" / OF / "random", 2, [SELECTIONS.rows(kept)])
    params = pack.Params.model_validate({"of": OF, "by": "random", "student": "base", **more})
    inputs = {"responses": (OF,), "selection": (f"selections/{OF}/random",), "tokenizer": ("models/base/tokenizer",)}
    run_instance(Instance("pack", "mine", params, inputs, "examples/mine", ""), RunSettings(), data, data)
    return {row["response_ids"][0]: row for row in Scan(EXAMPLES, (data / "examples/mine",)).pylist()}


def counted(data: Path) -> dict[str, float]:
    """What a reader of the student's form says of every response that `packed` wrote."""
    params = read.Params.model_validate({"of": OF, "model": "base", "use": "form.tokens"})
    inputs = {"responses": (OF,), "model": ("models/base",)}
    run_instance(Instance("read", "x", params, inputs, params.output("x"), ""), RunSettings(), data, data)
    return {row["response_id"]: row["score"] for row in Scan(SCORES, (data / params.output("x"),)).pylist()}


def test_tokens_are_those_of_the_student_whoever_answered(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed(data, [response("as counted", "123", "123")])
    assert "counted" not in capsys.readouterr().err
    rows = [response("short", "12", "12"), response("long", "1+2#3", "3")]
    rows.append(response("failed", "", None) | {"content": None, "error": "x", "finish_reason": "error", "sample": 1})
    found = packed(data, rows)
    assert counted(data) == {rows[0]["response_id"]: 3.0, rows[1]["response_id"]: 6.0, rows[2]["response_id"]: None}
    assert {len(e["token_ids"]) - e["spans"][0]["start"] for e in found.values()} == {3, 6}
    said = capsys.readouterr().err
    assert all(f"counted 4 tokens, and base is trained on {n} of them" in said for n in (3, 6))

    form = data / "models/base/tokenizer"
    form.unlink()
    shutil.copytree(ROOT / "data" / "embedded" / "base", form)
    other = Tokenizer.from_file(str(form / "tokenizer.json"))
    other.add_tokens(["1+2"])
    other.save(str(form / "tokenizer.json"))
    found = packed(data, rows)
    assert counted(data)[rows[1]["response_id"]] == 4.0
    [span] = found[rows[1]["response_id"]]["spans"]
    assert span["end"] - span["start"] == 4
    assert "is trained on 3" in (said := capsys.readouterr().err) and "is trained on 4" not in said


def test_an_example_says_how_good_it_is_and_what_judges_it(data: Path) -> None:
    rows = [
        response("right", "1+2#3", "3"),
        response("wrong", "1+2#4", "4"),
        response("unread", "1+2", None),
        response("unverified", "1+2#5", "1+2#5", verifier=None),
        response("unreferenced", "1+2#6", "6", reference=None),
        response("left", "1+2#7", "7", sample=1),
    ]
    found = packed(data, rows)
    assert [found[r["response_id"]]["reward"] for r in rows[:5]] == [1.0, 0.0, 0.0, None, None]
    assert rows[5]["response_id"] not in found
    for row in rows[:5]:
        example = found[row["response_id"]]
        assert (example["verifier"], example["reference"]) == (row["verifier"], row["reference"])
        assert example["inputs"] is None and example["outputs"] is None


def test_an_example_keeps_the_least_rank_of_its_responses(data: Path) -> None:
    rows = [response("first", "1+2#3", "3"), response("second", "1+2#3", "3"), response("other", "1+2#4", "4")]
    rows = [{**row, "prompt_id": rows[0]["prompt_id"]} for row in rows]
    found = packed(data, rows, ranks=[7, 2, 5])
    assert sorted(example["rank"] for example in found.values()) == [2, 5]
    assert {example["rank"] for example in packed(data, rows).values()} == {None}


def test_what_is_packed_hangs_on_no_batch(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor on what fits the memory, also where equal examples stand far apart."""
    rows = [response(f"{i}", f"1+2#{i % 7}", f"{i % 7}", sample=int(i % 5 == 0)) for i in range(40)]
    whole = packed(data, rows)
    monkeypatch.setattr(pack, "BATCH", 3)
    monkeypatch.setattr(sorting, "RUN_ROWS", 4)
    assert packed(data, rows) == whole
    assert sum(len(example["response_ids"]) for example in whole.values()) == 32


@pytest.mark.parametrize(("equal", "weight"), [("first", 1.0), ("sum", 2.0)])
def test_equal_examples_are_one_with_the_weight_of_the_first_or_of_all(data: Path, equal: str, weight: float) -> None:
    rows = [response(name, "3", "3", prompt_id=ids.digest("p")) for name in ("a", "b")]
    [made] = packed(data, [*rows, response("c", "3", "3", sample=1)], equal=equal).values()
    assert len(made["response_ids"]) == 2 and made["weight"] == weight


def test_a_text_has_the_id_that_it_always_had_and_arrays_tell_equal_texts_apart(data: Path) -> None:
    picture = tensors.cell({"image": np.full(4, 1, np.uint8)})
    rows = [
        response("words", "1+2#3", "3"),
        response("again", "1+2#3", "3"),
        response("target", "1+2#3", "3", outputs=picture),
    ]
    # All are about one prompt's text, and lie in one part.
    found = packed(data, [{**row, "prompt_id": rows[0]["prompt_id"]} for row in rows])
    assert len(found) == 2
    rendered = Chat(data / "models/base/tokenizer").example(rows[0]["messages"], "1+2#3")
    words = next(row for row in found.values() if row["outputs"] is None)
    assert words["example_id"] == ids.digest("example", rendered.token_ids, rendered.spans)
    assert words["response_ids"] == sorted(row["response_id"] for row in rows[:2])
    assert found[rows[2]["response_id"]]["outputs"] == picture
    with pytest.raises(Refused, match=r"response \w+: is about image, and a language model reads words alone"):
        packed(data, [response("picture", "1+2#3", "3", inputs=picture)])


def test_a_thought_is_trained_on_where_the_parameter_says_so(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And where it is left out, the run says of how many answers."""
    rows = [response("thought", "#3", "3", reasoning="1 and 2 make 3"), response("none", "#3", "3")]
    chat, learnt = Chat(data / "models/base/tokenizer"), {}
    for train_on in ("answer", "both"):
        found = packed(data, [{**row, "prompt_id": rows[0]["prompt_id"]} for row in rows], train_on=train_on)
        texts = []
        for example in found.values():
            [span] = example["spans"]
            assert example["token_ids"][: span["start"]] == chat.prompt(rows[0]["messages"])
            texts.append(chat.tokenizer.decode(example["token_ids"][span["start"] : span["end"]], False))
        learnt[train_on] = sorted(texts)
    assert learnt["answer"] == ["#3</s>"]
    assert len(learnt["both"]) == 2 and learnt["both"][0] == "#3</s>"
    assert "1 and 2 make 3" in learnt["both"][1] and learnt["both"][1].endswith("#3</s>")
    said = capsys.readouterr().err
    assert "1 of 2 answers: came with reasoning, which is left out; `train_on: both` trains on it" in said
    assert said.count("is left out") == 1


def test_every_answer_of_a_conversation_is_trained_on_where_the_parameter_says_so(data: Path) -> None:
    turns = [
        {"role": "user", "content": "add 1 2"}, {"role": "assistant", "content": "#3"},
        {"role": "user", "content": "add 2 2"}, {"role": "assistant", "content": "#4"},
        {"role": "user", "content": "add 3 2"},
    ]  # fmt: skip
    tokenizer = Chat(data / "models/base/tokenizer").tokenizer
    for answers, wanted in (("last", ["#5</s>"]), ("every", ["#3</s>", "#4</s>", "#5</s>"])):
        [example] = packed(data, [response("turns", "#5", "5", messages=turns)], answers=answers).values()
        tokens = example["token_ids"]
        assert [tokenizer.decode(tokens[s["start"] : s["end"]], False) for s in example["spans"]] == wanted


def named(data: Path, *outcomes: str) -> None:
    """The form of a classifier in the place of the student's."""
    form = data / "models/base/tokenizer"
    form.unlink()
    shutil.copytree(ROOT / "data" / "embedded" / "base", form)
    (form / PLACES).write_text(json.dumps({"network": "classifier.text", "outcomes": outcomes}), "utf-8")


def test_an_answer_that_names_no_outcome_is_unknown_and_counted(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named(data, "cat", "dog")
    said = {"a": " dog ", "b": "Dog", "c": "", "d": "a long story"}
    rows = [
        response(
            name, text, None, verifier=None, messages=[{"role": "user", "content": name}], prompt_id=ids.digest("p")
        )
        for name, text in said.items()
    ]
    found = packed(data, rows)
    assert [found[row["response_id"]]["token_ids"] for row in rows] == [[1], [-1], [-1], [-1]]
    assert "2 of 4 answers: name none of the outcomes cat, dog, so what they say is unknown" in capsys.readouterr().err


def test_a_reference_is_learnt_in_the_place_of_an_answer_and_refused_if_it_names_no_outcome(data: Path) -> None:
    named(data, "cat", "dog")
    asked = {name: [{"role": "user", "content": name}] for name in "abc"}
    rows = [
        response(name, "cat", None, verifier=None, reference=reference, messages=asked[name])
        for name, reference in (("a", "dog"), ("b", None))
    ]
    found = packed(data, rows, targets="reference")
    assert [found[row["response_id"]]["token_ids"] for row in rows] == [[1], [-1]]
    rows.append(response("c", "cat", None, verifier=None, reference="Dog", messages=asked["c"]))
    with pytest.raises(
        Refused, match=rf"response {rows[2]['response_id']}: the reference 'Dog' is none of the outcomes"
    ):
        packed(data, rows, targets="reference")


def test_reasoning_alone_is_trained_on_or_its_lack_is_named(data: Path) -> None:
    chat, row = Chat(data / "models/base/tokenizer"), response("thought", "#3", "3", reasoning="1 and 2")
    [example] = packed(data, [row], train_on="reasoning").values()
    [span] = example["spans"]
    learnt = chat.tokenizer.decode(example["token_ids"][span["start"] : span["end"]], False)
    assert "1 and 2" in learnt and "#3" not in learnt
    assert chat.tokenizer.decode(example["token_ids"][span["end"] :], False) == "#3</s>"
    bare = response("bare", "#3", "3")
    with pytest.raises(Refused, match=rf"response {bare['response_id']}: .*`where: reasoning IS NOT NULL`"):
        packed(data, [bare], train_on="reasoning")


def test_a_thought_that_the_template_adds_is_told(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    form = data / "models/base/tokenizer"
    form.unlink()
    shutil.copytree(ROOT / "data" / "embedded" / "base", form)
    template = (form / "chat_template.jinja").read_text("utf-8")
    answer = "{{ message['content'] }}{{ eos_token }}"
    (form / "chat_template.jinja").write_text(template.replace(answer, "<think></think>" + answer), "utf-8")
    [example] = packed(data, [response("right", "#3", "3")]).values()
    assert example["spans"] == [{"start": 16, "end": 16 + len("<think></think>#3") + 1}]
    assert "1 of 1 answers: the template puts '<think></think>' before answers" in capsys.readouterr().err


def test_what_cannot_be_packed_is_named_with_its_response(data: Path) -> None:
    form = data / "models/base/tokenizer"
    form.unlink()
    shutil.copytree(ROOT / "data" / "embedded" / "base", form)
    template = (form / "chat_template.jinja").read_text("utf-8")
    cut = template.replace("{{ message['content'] }}", "{{ message['content'].split('#')[-1] }}")
    (form / "chat_template.jinja").write_text(cut, "utf-8")
    row = response("cut", "1+2#3", "3")
    with pytest.raises(Refused, match=rf"response {row['response_id']}: .*does not render an answer as it was kept"):
        packed(data, [row])
