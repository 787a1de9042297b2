"""Trainings on pictures and graphs: what is made of rows, counted, and gone on with to the same bits."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from pipeline.contracts import EXAMPLES, PROMPTS  # noqa: E402
from pipeline.core.methods import find  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.kinds.objective import Step  # noqa: E402
from pipeline.nets.graphs import Nodes, NodesConfig  # noqa: E402
from pipeline.nets.pictures import Conv, ConvConfig  # noqa: E402
from pipeline.plan.reading import load  # noqa: E402
from pipeline.plan.resolve import resolve  # noqa: E402
from pipeline.tables.tensors import cell  # noqa: E402
from pipeline.training import loop  # noqa: E402
from pipeline.training.checkpoints import Checkpoints  # noqa: E402
from pipeline.training.recipe import Recipe  # noqa: E402
from pipeline.training.rows import Rows  # noqa: E402
from pipeline.training.terms import Term  # noqa: E402
from tests.stages.ingesting import ingest as ingested  # noqa: E402

ROOT = Path(__file__).parents[2]
NAMES = ("example_id", "prompt_id", "token_ids", "spans", "weight", "inputs")
SHAPE: dict[str, Any] = {"num_channels": 1, "num_labels": 3, "image_mean": [0.5], "image_std": [0.5]}


def table(rows: int = 24) -> pa.Table:
    """Pictures of three classes, some of them unknown."""
    made = []
    for i in range(rows):
        image = np.random.default_rng(i).integers(0, 256, (8, 8, 1)).astype(np.uint8)
        known = {"token_ids": [-1 if i % 5 == 4 else i % 3], "spans": [{"start": 0, "end": 1}], "weight": 1.0 + i % 2}
        made.append({"example_id": f"{i:04d}", "prompt_id": f"{i:04d}", **known, "inputs": cell({"image": image})})
    return pa.Table.from_pylist(made, pa.schema([EXAMPLES.schema.field(name) for name in NAMES]))


def held(place: Path, rows: pa.Table) -> Rows:
    with pa.ipc.new_file(str(place), rows.schema) as file:
        file.write_table(rows)
    return Rows(place)


def conv(seed: int) -> Conv:
    torch.manual_seed(seed)
    return Conv(ConvConfig(widths=(4, 8), **SHAPE))


def term(name: str, **changed: Any) -> Term:
    method = find("objective", name)
    given = method.arguments.model_validate(changed.pop("arguments", {})).model_dump()
    traits = method.traits
    per = changed.pop("per", traits["item"])
    alone = traits.get("alone", True)
    return Term(
        1.0, method.factory(**given), frozenset(traits["reads"]), item=traits["item"], per=per, alone=alone, **changed
    )


def augmentations(*named: tuple[str, dict[str, Any]]) -> list[Any]:
    return [find("augmentation", name).factory(**given) for name, given in named]


MADE = (
    ("copies.repeated", {"times": 2}),
    ("moves.shifted", {"most": 1}),
    ("mixing.mixup", {"alpha": 1.0, "share": 0.5}),
)


def trained(place: Path, tmp_path: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """Two parts that learn in turns of each other, from rows that are made anew in every step."""
    torch.set_num_threads(1)
    turns = [
        loop.Turn(("student",), [term("supervised.cross_entropy", where="labelled", per="labelled")], steps=2),
        loop.Turn(("peer",), [term("divergence.forward", of="peer", against="student")]),
    ]
    parts, network = {"student": conv(0), "peer": conv(1)}, find("network", "classifier.image").factory()
    trainer = loop.Trainer(
        parts, dict.fromkeys(parts, network), turns, held(tmp_path / "rows.arrow", table()),
        Recipe(epochs=4, batch_rows=8, warmup_steps=2, seed=5), "cpu", augment=augmentations(*MADE),
    )  # fmt: skip
    curve = trainer.run(Checkpoints(place), 5, lambda *_: None)
    return {f"{n}.{k}": v.clone() for n, p in parts.items() for k, v in p.state_dict().items()}, curve


def test_a_killed_training_of_two_parts_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """By kill -9 in the middle, on a CPU, with augmentations: their numbers follow from the step alone."""
    whole, curve = trained(tmp_path / "whole", tmp_path)
    child = os.fork()
    if child == 0:
        original = loop.Trainer._step

        def dies(self: loop.Trainer, step: Step, *given: Any) -> dict[str, float]:
            if step.number == 8:
                os.kill(os.getpid(), 9)
            return original(self, step, *given)

        loop.Trainer._step = dies  # type: ignore[method-assign]
        trained(tmp_path / "stopped", tmp_path)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 9
    assert sorted(p.name for p in (tmp_path / "stopped").iterdir()) == ["checkpoint-5"]
    resumed, curve_of_resumed = trained(tmp_path / "stopped", tmp_path)
    assert curve_of_resumed == curve and len(curve) == 12
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert curve[0]["places"] == 16, "copies count as what they are"


def test_a_table_that_is_collated_once_trains_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose rows are read in every step, which a large table is."""
    whole, curve = trained(tmp_path / "whole", tmp_path)
    monkeypatch.setattr(loop, "COLLATED", 0)
    read, curve_of_read = trained(tmp_path / "read", tmp_path)
    assert curve_of_read == curve and all(torch.equal(whole[name], read[name]) for name in whole)


def test_moves_are_led_to_where_two_models_differ(tmp_path: Path) -> None:
    """In its turn the moving network alone learns, and the loss that it learns to raise rises."""
    torch.manual_seed(0)
    [led] = augmentations(("moves.led", {"most": 2.0}))
    away = term("divergence.forward", against="teacher")
    away.weight = -1.0
    network, student, teacher = find("network", "classifier.image").factory(), conv(0), conv(1).eval()
    with torch.no_grad():
        teacher.classifier.weight.mul_(20)
    # How much of such a picture is bright, hangs on where it is moved.
    bright = np.repeat(np.array([[250] * 4 + [5] * 4], np.uint8), 8, 0)[:, :, None]
    rows = table().to_pylist()
    given = pa.Table.from_pylist([{**row, "inputs": cell({"image": bright})} for row in rows], table().schema)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    trainer = loop.Trainer(
        {"student": student, "led": led.module}, {"student": network}, [loop.Turn(("led",), [away])],
        held(tmp_path / "rows.arrow", given),
        Recipe(epochs=40, batch_rows=24, learning_rate=0.02, warmup_steps=0, seed=5), "cpu", {"teacher": teacher},
        augment=[led],
    )  # fmt: skip
    [[pull]] = trainer.pulls()
    assert pull.norm > 0
    losses = [point["loss"] for point in trainer.run(Checkpoints(tmp_path / "kept"), 100, lambda *_: None)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) < 0
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())


def test_copies_do_not_change_a_mean(tmp_path: Path) -> None:
    """The loss of rows that stand there twice is the loss of the rows."""
    network, losses = find("network", "classifier.image").factory(), []
    for made in ((), (("copies.repeated", {"times": 2}),)):
        term_ = term("supervised.cross_entropy", where="labelled", per="labelled")
        trainer = loop.Trainer(
            {"student": conv(0)}, {"student": network}, [loop.Turn(("student",), [term_])],
            held(tmp_path / "rows.arrow", table()), Recipe(epochs=1, batch_rows=24, seed=5), "cpu",
            augment=augmentations(*made),
        )  # fmt: skip
        losses.append(trainer.pulls()[0][0])
    assert losses[0].loss == pytest.approx(losses[1].loss, rel=1e-5)
    torch.testing.assert_close(losses[0].sketch, losses[1].sketch, rtol=1e-4, atol=1e-6)


def test_a_term_of_states_pulls_beside_one_of_logits(tmp_path: Path) -> None:
    """It does not reach the head, and is compared with one that does."""
    objective = find("objective", "feature.hidden").factory()
    own = objective.modules({"last": 8}, {"last": 8})
    hidden = Term(
        1.0, objective, frozenset(find("objective", "feature.hidden").traits["reads"]), against="peer", own=own
    )
    trainer = loop.Trainer(
        {"student": conv(0), "own:1": own}, {"student": find("network", "classifier.image").factory()},
        [loop.Turn(("student", "own:1"), [term("supervised.cross_entropy", where="labelled", per="labelled"), hidden])],
        held(tmp_path / "rows.arrow", table()), Recipe(epochs=1, batch_rows=24, seed=5), "cpu", {"peer": conv(1)},
    )  # fmt: skip
    [[plain, states]] = trainer.pulls()
    assert len(plain.sketch) == len(states.sketch) and -1 <= plain.cosine(states) <= 1


def test_links_stand_between_the_places_of_their_graph(tmp_path: Path) -> None:
    """And each unit of a step divides its own sum: FF-G2M in one step is its three means."""
    rows = []
    for i, (nodes, at) in enumerate(((4, [0, 1, 3]), (3, [0, 1, 2]))):
        x = np.random.default_rng(i).standard_normal((nodes, 2)).astype(np.float32)
        edges = np.array([[0, 1, 1, 2], [1, 0, 2, 1]], np.int32)
        known = {"token_ids": [0, -1, 1], "spans": [{"start": 0, "end": 3}], "weight": 1.0}
        inputs = cell({"x": x, "edges": edges, "at": np.array(at, np.int32)})
        rows.append({"example_id": f"{i}", "prompt_id": f"{i}", **known, "inputs": inputs})
    given = pa.Table.from_pylist(rows, pa.schema([EXAMPLES.schema.field(name) for name in NAMES]))
    network = find("network", "graph.nodes").factory()
    links = network.collate(given)["links_2E"]
    # Of the first graph, whose node 2 is not asked about, one edge is left; both ways.
    assert links.T.tolist() == [[0, 1], [1, 0], [3, 4], [4, 3], [4, 5], [5, 4]]
    torch.manual_seed(0)
    shape: dict[str, Any] = {"numbers": 2, "widths": (4,), "num_labels": 2}
    student, teacher = Nodes(NodesConfig(linked=False, **shape)), Nodes(NodesConfig(linked=True, **shape)).eval()
    expected = []
    with torch.no_grad():
        inputs = network.collate(given)
        mine, theirs = (network.look(net, inputs, ()) for net in (copy.deepcopy(student), teacher))
        q, t = mine.heads["main"](mine.states_ND), theirs.heads["main"](theirs.states_ND)
        known = torch.tensor([0, 2, 3, 5])
        expected.append(torch.nn.functional.cross_entropy(q[known], torch.tensor([0, 1, 0, 1])))
        to, source = torch.cat([links, torch.arange(6).expand(2, -1)], 1)
        expected.append(torch.nn.functional.kl_div(q.log_softmax(1)[to], t.softmax(1)[source], reduction="sum") / 12)
        apart = [(z[links[0]] - z[links[1]]).abs().log_softmax(1) for z in (q, t)]
        expected.append(torch.nn.functional.kl_div(apart[0], apart[1].exp(), reduction="sum") / 6)
    terms = [
        term("supervised.cross_entropy", where="labelled", per="labelled"),
        term("links.low", against="teacher"), term("links.high", against="teacher"),
    ]  # fmt: skip
    trainer = loop.Trainer(
        {"student": student}, dict.fromkeys(("student", "teacher"), network), [loop.Turn(("student",), terms)],
        held(tmp_path / "rows.arrow", given), Recipe(epochs=1, batch_rows=2, seed=5), "cpu", {"teacher": teacher},
    )  # fmt: skip
    assert [pull.loss for pull in trainer.pulls()[0]] == pytest.approx([float(e) for e in expected], rel=1e-4)
    trainer.augment = augmentations(("copies.repeated", {"times": 2}))
    with pytest.raises(Refused, match="rows of several places cannot be made into others"):
        trainer.pulls()


def test_a_small_picture_costs_little_more_than_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """768 bytes that nothing can pack, and at most 850 with the row; at most so many of prompts, too."""
    monkeypatch.chdir(tmp_path)
    rows = 500
    ingested(use="shapes.one", rows=rows, seed=1, size=16, channels=3, noise=400.0)
    file = next(Path("data/prompts/train/mine").glob("*.parquet"))
    assert len(pq.read_table(file)) == rows and PROMPTS.schema.names == pq.read_table(file).column_names
    assert file.stat().st_size / rows <= 850


FAULTS = [
    ("kd", {"augment": [{"use": "moves.shifted"}]}, "makes rows that the stored signals are not of"),
    ("sft", {"objectives": [{"use": "links.low"}]}, "reads links_2E, which a classifier.image"),
]


@pytest.mark.parametrize(("entry", "change", "said"), FAULTS)
def test_a_plan_that_cannot_be_is_refused(entry: str, change: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    params = load(ROOT / "recipes" / "images.yaml")
    params["train"][entry].update(change)
    with pytest.raises(Refused, match=said):
        resolve(params)


def test_an_augmentation_of_pictures_is_refused_on_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    params = load(ROOT / "recipes" / "classifier_text.yaml")
    params["train"]["sft"]["augment"] = [{"use": "moves.flipped"}]
    with pytest.raises(Refused, match=r"moves.flipped changes image, which a classifier.text is not shown"):
        resolve(params)
