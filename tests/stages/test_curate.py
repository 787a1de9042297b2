"""Duplicates and contamination: what is dropped, what is kept though it looks alike, and the evidence."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.contracts import DROPS, PROMPTS
from pipeline.core.driver import run_instance
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance, Plan
from pipeline.kinds.source import GivenRow
from pipeline.sources.procedural import tasks
from pipeline.stages.curate import Params
from pipeline.tables import ids, parquet, tensors
from pipeline.tables.parquet import Scan
from pipeline.text import items
from pipeline.text.duplicates import bands_for, near_duplicates
from pipeline.text.ngrams import plain

# 17 and 18 words: long enough for the 13-gram rule.
LONG = "on a quiet evening the old miller counted every sack of grain that stood beside the door"
OTHER = "write a short letter to a friend and tell her about the garden that you planted this spring"


def prompt(
    text: str, *, group: str = "", reference: str | None = None, system: str | None = None, image: int | None = None
) -> dict:
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    inputs = None if image is None else tensors.cell({"image": np.full((2, 2), image, np.uint8)})
    own = ids.prompt_id(messages, inputs)
    shared = {"domain": "d", "source": "s", "group": group or own, "reference": reference, "inputs": inputs}
    return {"prompt_id": own, "messages": messages, **shared}


def run(data: Path, pool: list[dict], benchmark: list[dict], parts: int = 1, **section: object) -> list[dict]:
    parquet.write(PROMPTS, data / "prompts/train/mine", parts, [PROMPTS.rows(pool)])
    parquet.write(PROMPTS, data / "prompts/bench/theirs", 1, [PROMPTS.rows(benchmark)])
    params = Params.model_validate({"instance": "train", "against": "bench", **section})
    inputs = {"prompts": ("prompts/train/mine",), "against": ("prompts/bench/theirs",)}
    run_instance(Instance("curate", "train", params, inputs, "drops/train", ""), RunSettings(), data, data)
    return Scan(DROPS, (data / "drops/train",)).pylist()


def rules(drops: list[dict]) -> dict[str, str]:
    return {drop["prompt_id"]: drop["rule"] for drop in drops}


def test_of_equal_texts_the_lowest_id_is_kept(tmp_path: Path) -> None:
    pool = [prompt("Say it."), prompt("say  it."), prompt("SAY IT."), prompt("Say it.", system="In French.")]
    low, *others = sorted(p["prompt_id"] for p in pool[:3])
    drops = run(tmp_path, pool, [prompt(OTHER)])
    assert rules(drops) == dict.fromkeys(others, "exact")
    assert all(low in drop["evidence"] for drop in drops)


def test_equal_texts_about_different_pictures_are_no_duplicates(tmp_path: Path) -> None:
    """Empty texts are equal texts, and one instruction may stand beside every picture of a pool and a benchmark."""
    for text in ("", LONG):
        pool = [prompt(text, image=i) for i in range(6)]
        assert run(tmp_path / f"other {len(text)}", pool, [prompt(text, image=7), prompt(OTHER)], near=0.8) == []
        again = {**pool[0], "messages": [{"role": "user", "content": text.upper() + " "}], "prompt_id": "f" * 32}
        drops = run(tmp_path / f"same {len(text)}", [*pool, again], [prompt(text, image=1), prompt(OTHER)])
        assert rules(drops) == {"f" * 32: "exact", pool[1]["prompt_id"]: "contaminated_key"}
        assert drops[1]["evidence"].startswith("the same " + ("text and inputs as" if text else "inputs as"))


def test_near_duplicates_that_ask_the_same(tmp_path: Path) -> None:
    pool = [prompt(LONG + " " + OTHER), prompt(LONG + " " + OTHER + " please"), prompt(LONG)]
    drops = run(tmp_path, pool, [prompt("something else")], near=0.8)
    (dropped,) = drops
    assert dropped["rule"] == "near"
    assert dropped["prompt_id"] == max(pool[0]["prompt_id"], pool[1]["prompt_id"])
    # 35 words have 33 runs of three words, 36 have one more.
    assert f"{33 / 34:.3f}" in dropped["evidence"]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (prompt(LONG + " and found 12"), prompt(LONG + " and found 13")),
        (prompt(LONG + " which is largest", reference="a"), prompt(LONG + " which is smallest", reference="b")),
        (prompt(LONG + " now", system="Answer in one word."), prompt(LONG + " then", system="Answer in a poem.")),
    ],
)
def test_a_filled_template_is_no_duplicate(tmp_path: Path, one: dict, two: dict) -> None:
    assert run(tmp_path, [one, two], [prompt("something else")], near=0.5) == []


def procedural(rows: int, seed: int) -> list[dict]:
    given = [row for row in tasks(rows=rows, seed=seed) if isinstance(row, GivenRow)]
    return [{"prompt_id": ids.prompt_id(r.columns["messages"]), "source": r.source, **r.columns} for r in given]  # type: ignore[arg-type]


def test_templates_do_not_eat_the_pool(tmp_path: Path) -> None:
    """Only items that the benchmark has are dropped, by their key and not by how they read."""
    pool, benchmark = procedural(960, 1), procedural(480, 2)
    drops = run(tmp_path, pool, benchmark, parts=3, near=0.5)
    shared = {p["group"] for p in benchmark}
    assert rules(drops) == {p["prompt_id"]: "contaminated_key" for p in pool if p["group"] in shared}
    assert 0 < len(drops) < 100
    assert Scan(DROPS, (tmp_path / "drops/train",)).parts == 3


def test_contamination_by_group_and_by_text(tmp_path: Path) -> None:
    item = prompt("add 003 001", group="add 001 003")
    variant, copy, clean = prompt("add 001 003", group="add 001 003"), prompt("ADD  003 001"), prompt("add 001 004")
    drops = run(tmp_path, [variant, copy, clean], [item])
    assert rules(drops) == {variant["prompt_id"]: "contaminated_key", copy["prompt_id"]: "contaminated_key"}
    assert all(item["prompt_id"] in drop["evidence"] for drop in drops)


def test_contamination_by_thirteen_words(tmp_path: Path) -> None:
    words = LONG.split()
    quoted = prompt("Recall: " + " \n ".join(w.upper() + "," for w in words[2:15]) + " and so on")
    too_short = prompt("Recall: " + " ".join(words[2:14]) + " and so on")
    drops = run(tmp_path, [quoted, too_short], [prompt(LONG)])
    assert rules(drops) == {quoted["prompt_id"]: "contaminated_ngram"}
    assert " ".join(words[2:15]) in drops[0]["evidence"]


ZH = "小明有十二个苹果,他每天吃两个,并且每隔一天再买三个苹果,请问两个星期之后他还剩下多少个苹果?"
JA = "太郎は毎朝六時に起きて、駅まで十五分歩いてから電車に乗り、会社には八時に着きます。"
TH = "สมชายมีแอปเปิ้ลสิบสองผลและเขากินวันละสองผลทุกวันจนกว่าจะหมดในสัปดาห์หน้า"
FOX = "The quick brown fox doesn't jump over the lazy dog because it is - quite simply - too tired today"


@pytest.mark.parametrize(
    ("item", "copy"),
    [
        (ZH, f"请解下面的题目:{ZH}谢谢。"),
        (ZH, ZH.replace(",", "\uff0c").replace("?", "\uff1f") + "好"),
        (ZH, "题" + ZH.replace(",", " ")),
        (JA, f"次の文を読んで答えなさい。{JA}何時に家を出ますか。"),
        (JA, f"「{JA}」とは"),
        (TH, f"จงตอบ{TH}ครับ"),
        (FOX, "Say it: " + FOX.replace("'", "\u2019").replace("-", "\u2013")),
        (FOX, "Say it: " + FOX.replace("'", "").replace(" - ", "\u2014")),
        (FOX.replace("'", "\u2019"), f"\u201c{FOX}\u201d, he said"),
        (FOX, "\u00ab" + FOX.upper() + "\u00bb!"),
        (FOX, "x " + FOX.replace(" ", "\u00a0")),
        (FOX, "x " + FOX.replace("lazy", "la\u200bzy")),
        (FOX, "x " + "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in FOX)),
    ],
)
def test_copies_in_any_script_and_type_are_found(tmp_path: Path, item: str, copy: str) -> None:
    (dropped,) = run(tmp_path, [prompt(copy), prompt("something else")], [prompt(item), prompt("another")])
    assert dropped["prompt_id"] == prompt(copy)["prompt_id"]
    assert dropped["rule"] == "contaminated_ngram"


@pytest.mark.parametrize("text", [ZH, JA, TH, FOX])
def test_near_twins_in_any_script(tmp_path: Path, text: str) -> None:
    twins = [prompt(text + text + ending) for ending in (" a", " b")]
    (dropped,) = run(tmp_path, [*twins, prompt("something else")], [prompt("another")], near=0.8)
    assert dropped["rule"] == "near"


@pytest.mark.parametrize("instruction", [LONG, ZH, JA, "Answer the question below in one word and say nothing else."])
def test_a_shared_instruction_is_no_contamination(tmp_path: Path, instruction: str) -> None:
    """Forty prompts and ten items of one instruction: only the one whose own words are an item's is dropped."""
    own = " ".join(f"item{i}" for i in range(14))
    pool = [prompt(f"{instruction} What is {i} and {i + 1}?") for i in range(40)]
    benchmark = [prompt(f"{instruction} What is {i} and {i + 2}?") for i in range(100, 110)]
    copied = prompt(f"{instruction} Once more: {own}")
    drops = run(tmp_path, [*pool, copied], [*benchmark, prompt(f"{instruction} {own}")])
    assert rules(drops) == {copied["prompt_id"]: "contaminated_ngram"}


def test_a_shared_system_turn_is_no_contamination(tmp_path: Path) -> None:
    assert run(tmp_path, [prompt("one thing", system=LONG)], [prompt("another thing", system=LONG)]) == []


def test_a_rule_that_misses_canaries_stops_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seeded fault: texts are compared as they stand, so copies in capitals are missed."""
    monkeypatch.setattr(items, "plain", lambda texts: texts)
    with pytest.raises(RuntimeError, match="planted copies"):
        run(tmp_path, [prompt("a")], [prompt(LONG)])


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8])
def test_minhash_finds_what_exact_similarity_finds(threshold: float) -> None:
    """Recall against all pairs, on texts that were made alike; precision is 1 because pairs are verified."""
    random = np.random.default_rng(3)
    vocabulary = np.array([f"word{i}" for i in range(3000)])
    texts: list[str] = []
    for _ in range(150):
        words = random.choice(vocabulary, 40)
        for changed in (0, 1, 3):
            variant = words.copy()
            variant[random.choice(40, changed, replace=False)] = random.choice(vocabulary, changed)
            texts.append(" ".join(variant))
    sets = [{tuple(t.split()[i : i + 3]) for i in range(38)} for t in texts]
    pairs = [(i, j) for i in range(450) for j in range(i + 1, min(i + 3, 450)) if i // 3 == j // 3]
    alike = {(i, j) for i, j in pairs if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold}
    found = near_duplicates(plain(pa.array(texts)), lambda i: 0, threshold=threshold, words=3)
    for i, twin in found.items():
        shared = len(sets[i] & sets[twin.like]) / len(sets[i] | sets[twin.like])
        assert twin.similarity == pytest.approx(shared)
        assert shared >= threshold
        assert twin.kept < i
    to_drop = {j for _, j in alike}
    assert len(found.keys() & to_drop) >= 0.98 * len(to_drop)
    assert found.keys() <= to_drop


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.85, 0.9, 1.0])
def test_bands_miss_few_pairs_at_the_threshold(threshold: float) -> None:
    bands, rows = bands_for(threshold)
    assert bands * rows <= 128
    assert (1 - threshold**rows) ** bands <= 0.01


def faults(**section: object) -> list[str]:
    return Params.model_validate({"instance": "train", "against": "bench", **section}).check(Plan(RunSettings()))


def test_the_short_keys_stand_for_rules(tmp_path: Path) -> None:
    """Rows, names and evidence are the same, whichever way they are asked for."""
    pool = [prompt(LONG), prompt(LONG.upper()), prompt(LONG + " now"), prompt("Recall: " + OTHER), prompt("clean")]
    listed = [
        "duplicates.exact",
        {"use": "duplicates.minhash", "threshold": 0.7, "words": 2},
        "contamination.key",
        {"use": "contamination.ngram", "words": 9},
    ]
    short = run(tmp_path / "short", pool, [prompt(OTHER)], near=0.7, near_words=2, ngram=9)
    assert run(tmp_path / "rules", pool, [prompt(OTHER)], rules=listed) == short
    assert {drop["rule"] for drop in short} == {"exact", "near", "contaminated_ngram"}


def test_every_rule_that_is_listed_drops_by_its_name(tmp_path: Path) -> None:
    item = LONG + " of all 12 of them"
    said = {
        "contaminated_part": "Recall this: " + item.replace("12", "twelve") + " and go on",
        "length": f"{LONG}, and {LONG}, and {LONG}",
        "repetition": "again and again " * 9,
        "refusal": "I'm sorry, but I cannot do that.",
        "language": "An einem ruhigen Abend steht das Korn neben der alten Tür.",
        "personal": "Write to ann@example.org.",
        "rouge": OTHER + " please",
    }
    listed = [
        "contamination.containment",
        {"use": "form.length", "most": 40},
        "form.repetition",
        "form.refusal",
        {"use": "language.detected", "languages": ["en"]},
        "personal.data",
        "duplicates.rouge",
    ]
    pool = [prompt(text) for text in [*said.values(), OTHER]]
    drops = run(tmp_path, pool, [prompt(item)], rules=listed)
    twin = max(prompt(OTHER)["prompt_id"], prompt(said["rouge"])["prompt_id"])
    expected = {(prompt(text)["prompt_id"], name) for name, text in said.items() if name != "rouge"}
    expected |= {(twin, "rouge"), (prompt(said["length"])["prompt_id"], "repetition")}
    assert {(drop["prompt_id"], drop["rule"]) for drop in drops} == expected
    assert all(drop["evidence"] for drop in drops)


def test_copies_of_every_kind_are_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = [prompt(f"{LONG} and {n} of {n + 7} stood by it") for n in (12, 345, 678)]
    run(tmp_path / "key", [prompt("clean")], items)
    told = "copies of items of bench that were planted and found: verbatim 9 of 9, typeset 3 of 3"
    assert f"{told}, inside 6 of 6, renumbered 3 of 3" in capsys.readouterr().err
    run(tmp_path / "part", [prompt("clean")], items, rules=["contamination.containment"])
    assert "inside 6 of 6, renumbered 3 of 3, rescripted 3 of 3" in capsys.readouterr().err
    run(tmp_path / "none", [prompt("clean")], items, rules=["duplicates.exact"])
    assert "planted" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"against": "train"}, "against: is the pool itself"),
        ({"rules": []}, "rules: is empty, so nothing would be looked at"),
        (
            {"rules": ["duplicates.exact"], "near": 0.8, "ngram": None},
            "near: stands for a rule, and `rules` lists them",
        ),
        (
            {"rules": ["form.length", {"use": "form.length", "least": 3}]},
            "rules: two of them drop by the name 'length'",
        ),
    ],
)
def test_what_cannot_be_meant_is_a_fault(section: dict, told: str) -> None:
    assert faults()[:1] == []
    assert faults(**section)[0].startswith(told)
