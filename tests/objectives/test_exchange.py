"""Messages reach the teacher and come back, and only as far as is said."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from pipeline.core.methods import find  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.kinds.objective import OUTCOMES, Loss, Step, View  # noqa: E402
from pipeline.plan.reading import load  # noqa: E402
from pipeline.plan.resolve import resolve  # noqa: E402
from pipeline.training.places import Places, places  # noqa: E402
from pipeline.training.terms import Role, Term, loss_of  # noqa: E402
from tests.laws.models import gpt2, llama, llava  # noqa: E402
from tests.laws.test_networks import illustrated, rows  # noqa: E402

TAP, TEACHER_TAP, SEEN = "transformer.h.0", "model.layers.0", "model.multi_modal_projector"
GIVEN = {"tap": TAP, "teacher_tap": TEACHER_TAP, "width": 8}
METHOD = find("objective", "exchange.messages")


def world() -> tuple[dict[str, Role], Mapping[str, torch.Tensor], Places]:
    """A student that learns, a teacher that does not, and two rows of which a third of the places are unknown."""
    torch.manual_seed(0)
    network, table = find("network", "language.causal").factory(), rows(9, 7)
    teacher = llama().requires_grad_(False)
    found = places(table)
    target_N = found.target_N.clone()
    target_N[::3] = -1
    roles = {"student": Role(gpt2(), network, True), "teacher": Role(teacher, network, False)}
    return roles, network.collate(table), replace(found, target_N=target_N)


def cost(term: Term) -> tuple[torch.Tensor, dict[str, Role]]:
    roles, inputs, found = world()
    total = {"place": 1, "labelled": 1}
    return loss_of([term], inputs, found, roles, Step(0, 1, 0, 1), total), roles


def messages(**changed: Any) -> Term:
    given = METHOD.arguments.model_validate({**GIVEN, **changed}).model_dump()
    objective = METHOD.factory(**given)
    torch.manual_seed(1)
    own = objective.modules({TAP: 16, OUTCOMES: 24}, {TEACHER_TAP: 16, "last": 16})
    return Term(1.0, objective, frozenset(METHOD.traits["reads"]), against="teacher", own=own)


@pytest.mark.parametrize(
    ("sends", "learn"),
    [
        ("states", {"says", "hears", "teacher_says", "teacher_hears"}),
        # Of a message of zeros the teacher still hears a state of its own.
        ("zeros", {"hears", "teacher_says", "teacher_hears"}),
        ("nothing", {"hears", "teacher_says"}),
    ],
)
def test_what_is_sent_is_answered(sends: str, learn: set[str]) -> None:
    """Without the terms of consistency the gradient goes the way of the message, through a teacher that stays."""
    term = messages(sends=sends, agree=0.0, keep=0.0)
    value, roles = cost(term)
    value.backward()
    assert term.own is not None
    reached = {name.split(".")[0] for name, p in term.own.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == learn
    assert all(p.grad is None for p in roles["teacher"].module.parameters())
    grads = {name: p.grad for name, p in roles["student"].module.named_parameters()}
    below, above = (grads[f"transformer.h.{i}.mlp.c_fc.weight"] for i in (0, 1))
    assert above is not None and above.any()
    assert below is not None and bool(below.any())


def test_unknown_places_have_no_answer_to_learn() -> None:
    """They are judged by the two consistencies alone; and each of the three parts counts with its weight."""
    parts = [cost(messages(agree=a, keep=k))[0] for a, k in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (2.0, 3.0))]
    said, agree, keep, whole = parts
    torch.testing.assert_close(whole, said + 2 * (agree - said) + 3 * (keep - said))
    labelled = cost(replace(messages(agree=0.0, keep=0.0), where="labelled"))[0]
    # Places that are not asked about keep their own states, so what is said elsewhere moves a little.
    assert labelled != said and abs(float(labelled.detach() / said.detach()) - 1) < 0.2


def test_a_model_looked_at_again_with_its_own_states_says_what_it_said() -> None:
    def again(view: View) -> Loss:
        shown = view.look({TAP: view.features[TAP]}, (TAP,))
        assert torch.equal(shown.features[TAP], view.features[TAP])
        torch.testing.assert_close(shown.said(), view.logprob_N)
        assert len(shown.said()) == len(view.target_N)
        return Loss(shown.said(), view.weight_N)

    again.taps = (TAP,)  # type: ignore[attr-defined]
    reads = frozenset({"features", "look", "logprob_N", "target_N", "weight_N"})
    for where in ("all", "labelled"):
        cost(Term(1.0, again, reads, where=where))


def switched(same: bool) -> tuple[torch.Tensor, dict[str, Role], Term]:
    """A student whose picture goes through its teacher, which is itself or another; the map is the identity."""
    torch.manual_seed(0)
    network, table, method = find("network", "language.stacked").factory(), illustrated(9, 7), "exchange.switch"
    student, other = llava(), llava()
    teacher = copy.deepcopy(student if same else other).requires_grad_(False)
    roles = {"student": Role(student, network, True), "teacher": Role(teacher, network, False)}
    objective = find("objective", method).factory(tap=SEEN, teacher_tap=SEEN)
    own = objective.modules({SEEN: 16}, {SEEN: 16})
    with torch.no_grad():
        own.weight.copy_(torch.eye(16))
        own.bias.zero_()
    reads = frozenset(find("objective", method).traits["reads"])
    term = Term(1.0, objective, reads, against="teacher", own=own)
    value = loss_of([term], network.collate(table), places(table), roles, Step(0, 1, 0, 1), {"place": 1})
    return value, roles, term


def test_a_teacher_that_sees_the_same_says_the_same() -> None:
    value, *_ = switched(same=True)
    torch.testing.assert_close(value, torch.zeros(()), rtol=0, atol=1e-5)


def test_what_a_teacher_says_of_the_students_picture_teaches_its_eyes_alone() -> None:
    value, roles, term = switched(same=False)
    value.backward()
    assert value > 0 and term.own is not None
    assert all(p.grad is None for p in roles["teacher"].module.parameters())
    learnt = {name for name, p in roles["student"].module.named_parameters() if p.grad is not None and p.grad.any()}
    assert any("vision_tower" in name for name in learnt) and any("multi_modal_projector" in name for name in learnt)
    assert not any("language_model" in name or "lm_head" in name for name in learnt)
    assert all(p.grad is not None and p.grad.any() for p in term.own.parameters())


def test_a_network_into_which_nothing_can_be_put_is_refused() -> None:
    class Closed:
        def look(self, *given: Any) -> Any:
            return find("network", "language.causal").factory().look(*given)

    roles, inputs, found = world()
    roles["teacher"] = replace(roles["teacher"], network=Closed())  # type: ignore[arg-type]
    with pytest.raises(Refused, match="Closed has no places that states can be put at"):
        loss_of([messages()], inputs, found, roles, Step(0, 1, 0, 1), {"place": 1})


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, "exchange.messages is answered by the teacher, so it needs a live model: say `shadow:`"),
        ({"gradient_checkpointing": True}, "looks at the student again inside, which cannot be computed anew"),
    ],
)
def test_it_is_refused_where_nobody_can_answer(changed: dict[str, Any], told: str) -> None:
    given = load(Path(__file__).parents[2] / "params.yaml")
    given["train"]["kd"] |= {"objectives": [{"use": METHOD.name, "tap": TAP, "teacher_tap": TAP}], **changed}
    with pytest.raises(Refused, match=told):
        resolve(given)
