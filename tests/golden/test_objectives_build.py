"""Feature objectives and heads against published references: values and gradients of the authors' own code.

Their modules are set to what the reference was called with: a projection to the identity, an exit to its logits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.kinds.objective import DenseTeacher, TopKTeacher, View
from pipeline.laws.objective import store
from pipeline.model import heads
from pipeline.objectives.contrast import apart
from pipeline.training.reduce import reduce
from tests.golden.test_objectives import build

CLOSE = {"rtol": 2e-5, "atol": 2e-5}


def load(name: str) -> dict[str, torch.Tensor]:
    with np.load(Path(__file__).parent / "data" / f"vision_{name}.npz", allow_pickle=False) as stored:
        return {key: torch.from_numpy(np.asarray(stored[key])) for key in stored.files}


def identity(width: int) -> torch.nn.Linear:
    made = torch.nn.Linear(width, width)
    with torch.no_grad():
        made.weight.copy_(torch.eye(width))
        made.bias.zero_()
    return made


def value_and_gradient(objective: Any, states_ND: torch.Tensor, **fields: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean over places, and its gradient by the student's states."""
    learnt = states_ND.clone().requires_grad_()
    own = identity(states_ND.shape[1])
    view = View(features={"last": learnt}, own=own, weight_N=torch.ones(len(learnt)), **fields)
    total = reduce([objective(view)], len(learnt))
    (gradient,) = torch.autograd.grad(total, learnt)
    return total.detach(), gradient


@pytest.mark.parametrize("case", ["nd_mixed", "nd_teacher_larger"])
def test_norm_and_direction(case: str) -> None:
    """`DirectNormLoss`, on states of which some are longer than the teacher's."""
    stored = load(case)
    taps = {"last": stored["t_emb"], "class_mean": stored["centers"][stored["labels"]]}
    made = value_and_gradient(build("feature.nd"), stored["s_emb"], teacher_features=taps)
    torch.testing.assert_close(made, (stored["loss"], stored["grad_s"]), **CLOSE)


def test_image_and_words() -> None:
    """The loss of `train_all.py` is up to the constant 1."""
    stored = load("vl2v_adip")
    taps = {"last": stored["img"], "class_mean": stored["txt"]}
    objective = build("feature.cosine", share=float(stored["lmd"]))
    value, gradient = value_and_gradient(objective, stored["proj_raw"], teacher_features=taps)
    torch.testing.assert_close((value - 1, gradient), (stored["loss"], stored["grad_proj_raw"]), **CLOSE)


def test_disjoint_masks() -> None:
    """The loss of `models_dmjd.py` over two views of three pictures: what is hidden by its squared error, what is seen
    by its smooth L1 distance, each a mean over its own patches."""
    stored = load("dmjd_loss")
    target, hidden = stored["target"].repeat(2, 1, 1), stored["mask"].bool()
    found = value_and_gradient(
        build("feature.hidden"), stored["pred"][hidden], teacher_features={"last": target[hidden]}
    )
    seen = value_and_gradient(
        build("feature.smooth"), stored["pred_vis"].flatten(0, 1), teacher_features={"last": target[~hidden]}
    )
    expected = stored["grad_pred"][hidden], stored["grad_pred_vis"].flatten(0, 1)
    torch.testing.assert_close((found[0] + seen[0], found[1], seen[1]), (stored["loss"], *expected), **CLOSE)


@pytest.mark.parametrize("case", ["ofa_eps1p0_T1p0", "ofa_eps1p5_T1p0"])
@pytest.mark.parametrize("kept", [None, 10])
def test_exit_heads(case: str, kept: int | None) -> None:
    """`ofa_loss`, from a live teacher and from stored signals of all outcomes."""
    stored = load(case)
    teacher: Any = DenseTeacher(stored["logits_teacher"])
    if kept is not None:
        teacher = store(stored["logits_teacher"], kept, 1.0)
        assert isinstance(teacher, TopKTeacher)
    objective = build("exits.ofa", tap="last", gamma=float(stored["eps"]))
    made = value_and_gradient(objective, stored["logits_student"], target_N=stored["label"].long(), teacher=teacher)
    torch.testing.assert_close(made, (stored["loss"], stored["grad_s"]), **CLOSE)


def test_a_label_that_was_not_stored_is_among_the_others() -> None:
    """With two outcomes stored of five, the term of the label moves to their rest."""
    teacher = store(torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0]]), 2, 1.0)
    student = torch.zeros(1, 5)
    values = [
        value_and_gradient(
            build("exits.ofa", tap="last", gamma=2.0), student, target_N=torch.tensor([label]), teacher=teacher
        )[0]
        for label in (0, 4, -1)
    ]
    p = torch.cat([teacher.logprobs_NK[0].exp(), teacher.tail_N])
    log_q = torch.tensor([0.2, 0.2, 0.6]).log()
    stands = torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [0, 0, 0]])
    expected = [-(((p + each) ** 2 - each) * log_q).sum() for each in stands]
    torch.testing.assert_close(torch.stack(values), torch.stack(expected), **CLOSE)


def test_answers_to_aspects() -> None:
    """The aspect term of `MaKD`."""
    stored = load("makd")
    logits = stored["student_aspect_logits"].clone().requires_grad_()
    taps = {"aspects": stored["teacher_aspect_probs"]}
    view = View(student_NV=logits, teacher_features=taps, weight_N=torch.ones(len(logits)))
    total = reduce([build("targets.binary", teacher_tap="aspects")(view)], len(logits))
    torch.testing.assert_close(total.detach(), stored["loss"], **CLOSE)
    torch.testing.assert_close(torch.autograd.grad(total, logits)[0], stored["grad_s"], **CLOSE)


def test_two_cosines_are_vl2v_adip() -> None:
    """`DFC_STAGE1.dfc_loss` is a sum of two terms of `feature.hidden`, up to its constant."""
    stored = load("vl2v_adip")
    share, total, gradient = float(stored["lmd"]), torch.zeros(()), torch.zeros_like(stored["proj_raw"])
    for weight, tap in ((share, "img"), (1 - share, "txt")):
        objective = build("feature.hidden", distance="cosine", teacher_tap=tap)
        value, slope = value_and_gradient(objective, stored["proj_raw"], teacher_features={tap: stored[tap]})
        total, gradient = total + weight * value, gradient + weight * slope
    torch.testing.assert_close(total - 1, stored["loss"].float(), **CLOSE)
    torch.testing.assert_close(gradient, stored["grad_proj_raw"], **CLOSE)


@pytest.mark.parametrize(("key", "alpha", "beta"), [("best_acc", None, None), ("acc_a05_b1", 0.5, 1.0)])
def test_two_heads_answer_as_dho(key: str, alpha: float | None, beta: float | None) -> None:
    """`alpha softmax(ce) + (1 - alpha) softmax(kd / beta)`, at the grid's best and at its fixed setting."""
    stored = load("dho_evaluate")
    alpha = float(stored["best_alpha"]) if alpha is None else alpha
    beta = float(stored["best_beta"]) if beta is None else beta
    both, width = torch.cat([stored["ce_logits"], stored["kd_logits"]], 1), stored["ce_logits"].shape[1]
    named = {"main": lambda x: x[:, :width], "kd": lambda x: x[:, width:]}
    made = heads.answer(both, named, {"kd": heads.Share(share=1 - alpha, temperature=beta)})
    right = (made.argmax(1) == stored["labels"]).double().mean()
    assert 100 * float(right) == pytest.approx(float(stored[key]))
    torch.testing.assert_close(made.exp().sum(1), torch.ones(len(made)))


def test_a_place_among_others_equals_slidrs() -> None:
    """`NCELoss`, of states that are of length 1 there."""
    stored = load("slidr_nce")
    objective = build("contrast.nce", temperature=float(stored["temperature"]))
    value, gradient = value_and_gradient(objective, stored["k"], teacher_features={"last": stored["q"]})
    along = (stored["grad_k"] * stored["k"]).sum(1, keepdim=True) * stored["k"]
    torch.testing.assert_close(value, stored["loss"].to(value), **CLOSE)
    # Theirs are brought to length 1 before, so that theirs has a part along the state, which ours cannot have.
    torch.testing.assert_close(gradient, stored["grad_k"] - along, **CLOSE)


def test_places_of_one_class_equal_supcons() -> None:
    """`SupConLoss` at temperature 0.1, whose states are not brought to length 1; two copies of each example."""
    stored = load("supcon")
    states = torch.cat(stored["features"].unbind(1)).requires_grad_()
    value = apart(states, stored["labels"].repeat(2), 0.1).mean()
    (gradient,) = torch.autograd.grad(value, states)
    expected = stored["loss"].to(value), torch.cat(stored["grad_features"].unbind(1))
    torch.testing.assert_close((value.detach(), gradient), expected, **CLOSE)
