"""Equality with published references: values and gradients of the authors' own code, run once and stored.

The files say in `data/` what was called.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.core import methods
from pipeline.errors import Refused
from pipeline.kinds.objective import DenseTeacher, Loss, Reduced, Step, Teacher, TopKTeacher, View
from pipeline.training.reduce import reduce

CLOSE = {"rtol": 2e-5, "atol": 2e-6}
# Method, arguments, file, keys of the value and of the gradient in it. Names of weights differ between the toolkits:
# DistiLLM's lam is the student's share of the mixture, TAID's teacher_weight and TRL's beta are the teacher's.
REFERENCES: list[tuple[str, dict[str, Any], str, str]] = [
    ("divergence.forward", {}, "trl_gkd_jsd", "beta0.0_T1.0"),
    ("divergence.forward", {"temperature": 2.0}, "trl_gkd_jsd", "beta0.0_T2.0"),
    ("divergence.forward", {"variant": "code"}, "distillm", "forward_kl"),
    ("divergence.forward", {"variant": "code"}, "taid_repo_divergences", "fkl"),
    ("divergence.reverse", {}, "trl_gkd_jsd", "beta1.0_T1.0"),
    ("divergence.reverse", {"temperature": 2.0}, "trl_gkd_jsd", "beta1.0_T2.0"),
    ("divergence.reverse", {}, "distillm", "reverse_kl"),
    ("divergence.reverse", {}, "taid_repo_divergences", "rkl"),
    *(
        ("divergence.jsd", {"beta": beta, "temperature": tau}, "trl_gkd_jsd", f"beta{beta}_T{tau}")
        for beta in (0.1, 0.5, 0.9)
        for tau in (1.0, 2.0)
    ),
    *(("divergence.jsd", {"beta": b}, "taid_repo_divergences", f"js_tw{b}") for b in (0.1, 0.5, 0.9)),
    *(("divergence.jsd", {"beta": 1 - lam}, "distillm", f"js_distance_lam{lam}") for lam in (0.5, 0.9)),
    *(
        ("divergence.skew_forward", {"alpha": a, "variant": "code"}, "distillm", f"skewed_forward_kl_lam{a}")
        for a in (0.1, 0.3)
    ),
    *(
        ("divergence.skew_forward", {"alpha": a, "variant": "code"}, "taid_repo_divergences", f"skew_fkl_{a}")
        for a in (0.1, 0.5)
    ),
    *(("divergence.skew_reverse", {"alpha": a}, "distillm", f"skewed_reverse_kl_lam{a}") for a in (0.1, 0.3)),
    *(("divergence.skew_reverse", {"alpha": a}, "taid_repo_divergences", f"skew_rkl_{a}") for a in (0.1, 0.5)),
    ("divergence.forward", {"variant": "code"}, "llavamod_mimic", "alltokens0"),
]


def load(name: str) -> dict[str, torch.Tensor]:
    with np.load(Path(__file__).parent / "data" / f"objectives_{name}.npz", allow_pickle=False) as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


def build(name: str, **arguments: Any) -> Any:
    method = methods.find("objective", name)
    made = method.factory(**method.arguments.model_validate(arguments).model_dump())
    return lambda view: made(view.restrict(method.traits["reads"]))


def see(student: torch.Tensor, labels: torch.Tensor, teacher: Teacher | None = None) -> View:
    """A view of logits that are aligned with their labels: logits [b, t] predict the label [b, t]."""
    valid = labels != -100
    return View(
        student_NV=student[valid],
        target_N=labels[valid],
        example_N=valid.nonzero()[:, 0],
        weight_N=torch.ones(int(valid.sum())),
        teacher=teacher,
    )


def shifted(logits: torch.Tensor, labels: torch.Tensor) -> View:
    """A view of whole sequences, whose logits predict the token after."""
    return see(logits[:, :-1], labels[:, 1:])


def dense(stored: dict[str, torch.Tensor]) -> DenseTeacher:
    return DenseTeacher(stored["teacher_logits"][stored["labels"] != -100])


def top_k(stored: dict[str, torch.Tensor]) -> TopKTeacher:
    valid = stored["labels"] != -100
    logprobs = stored["topk_logprobs"][valid]
    return TopKTeacher(stored["topk_ids"][valid].int(), logprobs, 1 - logprobs.exp().sum(1))


def evaluate(loss: Loss, student: torch.Tensor, normaliser: int) -> tuple[torch.Tensor, torch.Tensor]:
    value = reduce([loss], normaliser)
    return value.detach(), torch.autograd.grad(value, student)[0]


@pytest.mark.parametrize(("name", "arguments", "file", "key"), REFERENCES)
def test_a_divergence_equals_the_published_code(name: str, arguments: dict[str, Any], file: str, key: str) -> None:
    stored = load(file)
    student = stored["student_logits"].requires_grad_()
    loss = build(name, **arguments)(see(student, stored["labels"], dense(stored)))
    expected = (stored[f"out_{key}"], stored[f"grad_{key}"])
    torch.testing.assert_close(evaluate(loss, student, 7), expected, **CLOSE)


@pytest.mark.parametrize(("name", "key"), [("forward", "fkl"), ("skew_forward", "skew_fkl_0.1")])
def test_the_papers_form_is_the_codes_less_the_teachers_entropy(name: str, key: str) -> None:
    """`variant: paper` is a divergence; the released cross-entropy has its gradient and another number."""
    stored = load("taid_repo_divergences")
    student = stored["student_logits"].requires_grad_()
    teacher = dense(stored)
    log_p = teacher.logits_NV.log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1).mean()
    loss = build(f"divergence.{name}")(see(student, stored["labels"], teacher))
    expected = (stored[f"out_{key}"] - entropy, stored[f"grad_{key}"])
    torch.testing.assert_close(evaluate(loss, student, 7), expected, **CLOSE)


def test_jsd_reduces_as_trl_does() -> None:
    """The sum, a count given from outside, all positions per sequence, and a batch without a loss token."""
    stored = load("trl_gkd_jsd")
    student, labels, jsd = stored["student_logits"], stored["labels"], build("divergence.jsd")

    def value(labels: torch.Tensor, normaliser: float) -> torch.Tensor:
        teacher = dense({**stored, "labels": labels})
        return reduce([jsd(see(student, labels, teacher))], normaliser)

    everywhere = torch.zeros_like(labels)
    torch.testing.assert_close(value(labels, 1), stored["out_sum_beta0.5"], **CLOSE)
    torch.testing.assert_close(value(labels, 100), stored["out_numitems100_beta0.5"], **CLOSE)
    torch.testing.assert_close(value(everywhere, 2), stored["out_nolabels_batchmean_beta0.5"], **CLOSE)
    torch.testing.assert_close(value(everywhere - 100, 0), stored["out_allmasked_beta0.5"], **CLOSE)


@pytest.mark.parametrize(
    ("name", "arguments", "key"),
    [
        ("forward", {"variant": "code"}, "forward_kl"),
        ("reverse", {}, "reverse_kl"),
        ("jsd", {"beta": 0.1}, "js_distance"),
        ("skew_forward", {"variant": "code"}, "skewed_forward_kl"),
        ("skew_reverse", {}, "skewed_reverse_kl"),
    ],
)
def test_columns_of_minus_infinity_count_as_distillm_counts_them(
    name: str, arguments: dict[str, Any], key: str
) -> None:
    stored = load("distillm")
    for logits in ("student_logits", "teacher_logits"):
        stored[logits][..., -2:] = -torch.inf
    loss = build(f"divergence.{name}", **arguments)(see(stored["student_logits"], stored["labels"], dense(stored)))
    torch.testing.assert_close(reduce([loss], 7), stored[f"out_infvocab_{key}"], **CLOSE)


@pytest.mark.parametrize(("name", "key"), [("forward", "kl"), ("jsd", "jsd")])
def test_a_stored_top_k_equals_distillkits_bin_for_the_rest(name: str, key: str) -> None:
    stored = load("distillkit_sparse")
    student = stored["student_logits"].requires_grad_()
    loss = build(f"divergence.{name}")(see(student, stored["labels"], top_k(stored)))
    expected = (stored[f"sum_{key}_symmetric_uniform_T1.0"], stored[f"grad_{key}_symmetric_uniform_T1.0"])
    torch.testing.assert_close(evaluate(loss, student, 1), expected, **CLOSE)


def test_joining_the_rest_stays_below_dense_and_leaving_it_out_does_not() -> None:
    """DistillKit's three sums for one batch: K + 1 outcomes, dense, and K renormalised, which is no lower bound."""
    stored = load("distillkit_sparse")
    forward, student, labels = build("divergence.forward"), stored["student_logits"], stored["labels"]
    joined = reduce([forward(see(student, labels, top_k(stored)))], 1)
    whole = reduce([forward(see(student, labels, dense(stored)))], 1)
    torch.testing.assert_close(whole, stored["sum_kl_dense_T1"], **CLOSE)
    assert joined < whole < stored["sum_kl_zero_T1.0"]


def test_a_stored_top_k_at_another_temperature_is_refused() -> None:
    """DistillKit raises the stored mass of the rest to a power, which is not that mass at the other temperature."""
    stored = load("distillkit_sparse")
    valid = stored["labels"] != -100
    log_p = (stored["teacher_logits"][valid] / 2).log_softmax(1)
    at_two = 1 - log_p.gather(1, stored["topk_ids"][valid].long()).exp().sum(1)
    assert (top_k(stored).tail_N.sqrt() - at_two).abs().max() > 0.05
    with pytest.raises(Refused, match="temperature: 1"):
        build("divergence.forward", temperature=2.0)(see(stored["student_logits"], stored["labels"], top_k(stored)))


@pytest.mark.parametrize(("key", "normaliser"), [("token_mean", None), ("numitems50", 50)])
def test_cross_entropy_equals_transformers(key: str, normaliser: int | None) -> None:
    """On whole sequences: transformers shifts inside its loss."""
    stored = load("hf_causal_lm_ce")
    logits, labels = stored["logits"].requires_grad_(), stored["labels"]
    view = shifted(logits, labels)
    loss = build("supervised.cross_entropy")(view)
    expected = (stored[f"out_{key}"], stored[f"grad_{key}"])
    torch.testing.assert_close(evaluate(loss, logits, normaliser or len(view.target_N)), expected, **CLOSE)


def test_label_smoothing_equals_torch() -> None:
    stored = load("hf_causal_lm_ce")
    view = shifted(stored["logits"], stored["labels"])
    expected = torch.nn.functional.cross_entropy(view.student_NV, view.target_N, reduction="none", label_smoothing=0.1)
    loss = build("supervised.cross_entropy", label_smoothing=0.1)(view)
    torch.testing.assert_close(loss.value_N, expected, **CLOSE)


def test_the_references_tell_the_methods_apart() -> None:
    """Were one method registered under another's name, its numbers would not fit."""
    stored = load("taid_repo_divergences")
    view = see(stored["student_logits"], stored["labels"], dense(stored))
    names = sorted({name for name, *_ in REFERENCES})
    values = torch.stack([reduce([build(name)(view)], 7) for name in names])
    apart = (values[:, None] - values[None]).abs() + torch.eye(len(names))
    assert apart.min() > 1e-3


@pytest.mark.parametrize("t", [0.0, 0.2, 0.4, 0.8])
def test_taid_equals_the_authors_code(t: float) -> None:
    stored = load("taid")
    student = stored["student_logits"].requires_grad_()
    loss = build("schedule.taid", start=t)(see(student, stored["labels"], dense(stored)))
    torch.testing.assert_close(evaluate(loss, student, 7), (stored[f"out_t{t}"], stored[f"grad_t{t}"]), **CLOSE)


@pytest.mark.parametrize(
    ("key", "arguments"),
    [
        ("default", {}),
        ("big_alpha", {"start": 0.2, "rate": 0.1, "momentum": 0.9}),
        ("noadapt", {"rate": 0.0}),
    ],
)
def test_taids_schedule_equals_the_authors(key: str, arguments: dict[str, Any]) -> None:
    stored, method = load("taid"), methods.find("objective", "schedule.taid")
    taid, of = method.factory(**arguments), int(stored["sched_num_train_steps"])
    for number, loss in enumerate(stored["sched_losses"].tolist()):
        taid.update(Step(number, of, 0, 1), Reduced(loss, 1, {}))
        assert taid.t == pytest.approx(float(stored[f"sched_{key}_t"][number]), abs=1e-6)
        assert taid.fall == pytest.approx(float(stored[f"sched_{key}_momentum"][number]), abs=1e-6)


@pytest.mark.parametrize("epoch", [4, 9])
def test_ps_kd_equals_the_authors_code(epoch: int) -> None:
    """The student of the last epoch stands in for what it said: the same probabilities."""
    stored = load("pskd")
    student = stored["student_logits"].requires_grad_()
    view = see(student, stored["labels"], DenseTeacher(stored["prev_prediction"].clamp_min(1e-30).log()))
    loss = build("schedule.ps_kd")(replace(view, step=Step(0, 10, epoch, 10)))
    expected = stored[f"out_ep{epoch}of10"], stored[f"grad_ep{epoch}of10"]
    torch.testing.assert_close(evaluate(loss, student, len(stored["labels"])), expected, **CLOSE)


@pytest.mark.parametrize(
    ("key", "arguments"),
    [("beta0p1", {}), ("beta0p5", {"beta": 0.5}), ("beta0p1_ls0p1", {"label_smoothing": 0.1})],
)
def test_dpo_equals_the_authors_code(key: str, arguments: dict[str, Any]) -> None:
    """Rows 0 and 1 were chosen, 2 and 3 rejected; their labels are shifted inside, as transformers does."""
    stored = load("dpo_original")
    policy, labels = stored["policy_logits"].requires_grad_(), stored["labels"]
    view = shifted(policy, labels)

    def log_probs(logits: torch.Tensor) -> torch.Tensor:
        seen = shifted(logits, labels)
        return seen.student_NV.log_softmax(1).gather(1, seen.target_N[:, None])[:, 0]

    loss = build("preference.dpo", **arguments)(
        replace(
            view,
            logprob_N=log_probs(policy),
            reference_N=log_probs(stored["ref_logits"]),
            set_B=torch.tensor([0, 1, 0, 1]),
            reward_B=torch.tensor([1.0, 1.0, 0.0, 0.0]),
        )
    )
    torch.testing.assert_close(evaluate(loss, policy, 2), (stored[f"out_{key}"], stored[f"grad_{key}"]), **CLOSE)
