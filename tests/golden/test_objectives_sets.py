"""Objectives over sets of answers, and over the student's own, as published code computes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.kinds.objective import DenseTeacher, OtherTeacher, View
from pipeline.training import across
from tests.golden.test_objectives import CLOSE, build, evaluate, load, shifted

# Those that TRL finds: places of the student from and to, and of the teacher.
GOLD_GROUPS = [[[0, 2, 0, 1], [2, 4, 1, 3]], [[0, 1, 0, 1], [1, 3, 1, 3]]]
PAIRS: list[tuple[str, dict[str, Any], str]] = [
    ("pairs.ipo", {}, "ipo"),
    # Without a reference: DPO at beta 0.1 beside one that finds all answers equally likely.
    ("pairs.simpo", {"beta": 0.1, "margin_share": 0.0, "length": "sum"}, "reffree"),
]


def log_probs(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    seen = shifted(logits, labels)
    return seen.student_NV.log_softmax(1).gather(1, seen.target_N[:, None])[:, 0]


def pair_view(policy: torch.Tensor) -> View:
    """Rows 0 and 1 were chosen, 2 and 3 rejected; their labels are shifted inside, as transformers does."""
    stored = load("dpo_original")
    return replace(
        shifted(policy, stored["labels"]),
        logprob_N=log_probs(policy, stored["labels"]),
        reference_N=log_probs(stored["ref_logits"], stored["labels"]),
        set_B=torch.tensor([0, 1, 0, 1]),
        reward_B=torch.tensor([1.0, 1.0, 0.0, 0.0]),
    )


@pytest.mark.parametrize(("name", "arguments", "key"), PAIRS)
def test_pairs_equal_the_authors_code(name: str, arguments: dict[str, Any], key: str) -> None:
    stored = load("dpo_original")
    policy = stored["policy_logits"].requires_grad_()
    loss = build(name, **arguments)(pair_view(policy))
    torch.testing.assert_close(evaluate(loss, policy, 2), (stored[f"out_{key}"], stored[f"grad_{key}"]), **CLOSE)


def group_view(log_prob: torch.Tensor) -> View:
    """Two prompts with four answers each, of up to six tokens."""
    stored = load("adpo")
    valid = stored["response_mask"].bool()
    return View(
        logprob_N=log_prob[valid],
        reference_N=stored["old_log_prob"][valid],
        example_N=valid.nonzero()[:, 0],
        weight_N=torch.ones(int(valid.sum())),
        set_B=torch.arange(8) // 4,
        reward_B=stored["rewards"],
    )


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({}, "listwise_tau0.8"),
        ({"tau": 2.0}, "listwise_tau2.0"),
        # That file lowers tau by half of the target's entropy; its part by the answers' reward is 0.
        ({"adaptive": 0.5}, "listwise_adaptive_tau"),
    ],
)
def test_listwise_adpo_equals_the_authors_code(arguments: dict[str, Any], key: str) -> None:
    stored = load("adpo")
    log_prob = stored["log_prob"].requires_grad_()
    loss = build("listwise.adpo", variant="code", **arguments)(group_view(log_prob))
    value, gradient = evaluate(loss, log_prob, 2)
    expected = stored[f"out_{key}"], stored[f"grad_{key}"]
    torch.testing.assert_close((value, gradient), expected, **CLOSE)


def test_adpo_by_plackett_and_luce_equals_the_authors_code() -> None:
    """Its gradient is by u = (log-probability - anchor) / tau, the same for every token of an answer."""
    stored = load("adpo")
    log_prob = stored["log_prob"].requires_grad_()
    loss = build("listwise.adpo", variant="code", target="ranking")(group_view(log_prob))
    value, gradient = evaluate(loss, log_prob, 2)
    torch.testing.assert_close(value, stored["pl_out_plain"], **CLOSE)
    torch.testing.assert_close(gradient[:, 0] * 0.8, stored["pl_grad_plain"].flatten(), **CLOSE)


def answers_view(file: str, key: str) -> tuple[View, torch.Tensor]:
    """Two answers of five and three tokens, as the policy `key` says them; [B, T] of its log-probabilities."""
    stored = load(file)
    valid = stored["response_mask"].bool()
    said = stored[key].requires_grad_()
    view = View(
        logprob_N=said[valid],
        reference_N=stored["teacher_logp"][valid],
        example_N=valid.nonzero()[:, 0],
        weight_N=torch.ones(int(valid.sum())),
    )
    return view, said


def advantages(file: str, key: str, **arguments: Any) -> torch.Tensor:
    """What every token is worth: the gradient of minus the loss, where nobody took part in the sampling."""
    view, said = answers_view(file, key)
    loss = build("policy.minillm", mixed=0.0, variant="code", **arguments)(view)
    return -torch.autograd.grad(loss.value_N.sum(), said)[0]


@pytest.mark.parametrize("gamma", [0.95, 1.0])
def test_returns_equal_minillms_own_code(gamma: float) -> None:
    """It divides rewards by 0.5, which whitening undoes. Its whitening counts padding in, so that is no target."""
    stored = load("minillm_lmops")
    found = advantages("minillm_lmops", "old_logp", gamma=gamma, whitened=False)
    torch.testing.assert_close(found / 0.5, stored[f"adv_gamma{gamma}_whiten0"], **CLOSE)
    valid = stored["response_mask"].bool()
    plain = stored[f"adv_gamma{gamma}_whiten0"][valid]
    whitened = advantages("minillm_lmops", "old_logp", gamma=gamma)[valid]
    torch.testing.assert_close(whitened, (plain - plain.mean()) / plain.std(correction=0), **CLOSE)


@pytest.mark.parametrize("gamma", [0.0, 0.95])
def test_returns_equal_trls(gamma: float) -> None:
    """Over the sum of the discounts, to which it adds 1e-4 of those of the padding, behind the second answer."""
    stored = load("minillm_trl")
    found = advantages("minillm_trl", "student_logp", gamma=gamma, length="discounted", whitened=False)
    expected = stored[f"adv_gamma{gamma}_ln1"]
    torch.testing.assert_close(found[0], expected[0], **CLOSE)
    torch.testing.assert_close(found[1], expected[1], rtol=3e-4, atol=2e-6)
    plain = advantages("minillm_trl", "student_logp", gamma=gamma, length="none", whitened=False)
    # Where it does not divide, it counts the discounts from the first token, and all of them are 1 where gamma is 0.
    discounts = (gamma or 1.0) ** torch.arange(plain.shape[1])
    valid = stored["response_mask"].bool()
    torch.testing.assert_close((plain * discounts)[valid], stored[f"adv_gamma{gamma}_ln0"][valid], **CLOSE)


@pytest.mark.parametrize(("file", "key"), [("minillm_lmops", "single_step_reg"), ("minillm_trl", "single_step")])
def test_minillms_single_step_term_is_reverse_kl(file: str, key: str) -> None:
    stored = load(file)
    valid = stored["response_mask"].bool()
    student = stored["student_logits"].requires_grad_()
    view = View(
        student_NV=student[valid], weight_N=torch.ones(8), teacher=DenseTeacher(stored["teacher_logits"][valid])
    )
    found = evaluate(build("divergence.reverse")(view), student, 8)
    torch.testing.assert_close(found, (stored[f"out_{key}"], stored[f"grad_{key}"]), **CLOSE)


def groups_view(file: str, by: str) -> tuple[View, torch.Tensor, list[int]]:
    """Both answers without their last token, in groups; logits [b, t - 1] predict the label [b, t]. The student's
    logits, and how many groups each answer has."""
    stored = load(file)
    student, views, sizes = stored["student_logits"].requires_grad_(), [], []
    outcome_U = torch.full((23,), -1)
    if "teacher_to_student_map" in stored:
        outcome_U[:21] = stored["teacher_to_student_map"]
    for row in range(2):
        at, other_at = ((stored[f"{who}_labels"][row] != -100).nonzero()[:-1, 0] for who in ("student", "teacher"))
        if by == "bytes":
            ends, other_ends = (
                stored[f"{who}_byte_offsets"][row, places, 1].tolist()
                for who, places in (("student", at), ("teacher", other_at))
            )
            groups = across.by_bytes(*(spelling(each) for each in (ends, other_ends)))
            assert groups.tolist() == GOLD_GROUPS[row]
        else:
            groups = across.by_position([b"a"] * len(at), [b"a"] * len(other_at))
        said, heard = student[row].log_softmax(1), stored["teacher_logits"][row].log_softmax(1)

        def before(log_p: torch.Tensor, labels: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
            return log_p[places - 1, labels[places]].sum()

        both = zip(groups[:, :2], groups[:, 2:], strict=True)
        pairs = [(at[a:b], other_at[c:d]) for (a, b), (c, d) in both]
        labels, other_labels = stored["student_labels"][row], stored["teacher_labels"][row]
        views.append((
            torch.stack([student[row, own[-1] - 1] for own, _ in pairs]),
            torch.stack([stored["teacher_logits"][row, other[-1] - 1] for _, other in pairs]),
            torch.stack([before(heard, other_labels, other[:-1]) for _, other in pairs]),
            torch.stack([before(said, labels, own[:-1]) for own, _ in pairs]),
        ))  # fmt: skip
        sizes.append(len(pairs))
    logits, *rest = (torch.cat(each) for each in zip(*views, strict=True))
    return (
        View(student_NV=logits, other=OtherTeacher(*rest, outcome_U), weight_N=torch.ones(sum(sizes))),
        student,
        sizes,
    )


def spelling(ends: list[int]) -> list[bytes]:
    return [b"x" * (end - start) for start, end in zip([0, *ends], ends, strict=False)]


def mean_of_means(name: str, file: str, by: str, **arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean over groups of each answer, then over the answers; and its gradient."""
    view, student, sizes = groups_view(file, by)
    values = build(name, **arguments)(view).value_N.split(sizes)
    value = torch.stack([each.mean() for each in values]).mean()
    return value.detach(), torch.autograd.grad(value, student)[0]


def test_uld_equals_the_authors_code() -> None:
    value, _ = mean_of_means("across.uld", "uld_original", "position")
    torch.testing.assert_close(value, load("uld_original")["out_distil_skip_eos"], **CLOSE)


@pytest.mark.parametrize(
    ("name", "arguments", "by", "key"),
    [
        ("across.uld", {}, "position", "positional_bayesian"),
        ("across.gold", {"hybrid": False}, "bytes", "extended_bayesian"),
        ("across.gold", {}, "bytes", "hybrid_bayesian_adaptive"),
        ("across.gold", {"beta": 0.0, "matched": 1.0, "unmatched": 0.5}, "bytes", "hybrid_bayesian_w1_w0.5_beta0"),
    ],
)
def test_gold_equals_trls(name: str, arguments: dict[str, Any], by: str, key: str) -> None:
    """In its aligned form; `observed` compares a place late. Groups are those that it finds. It takes no
    logarithm of less than 1e-8, which one of the probabilities is."""
    stored = load("trl_gold_uld")
    value, gradient = mean_of_means(name, "trl_gold_uld", by, **arguments)
    torch.testing.assert_close(value, stored[f"out_{key}"], **CLOSE)
    near = CLOSE if arguments.get("beta") is None else {"rtol": 2e-5, "atol": 2e-4}
    torch.testing.assert_close(gradient, stored[f"grad_{key}"], **near)
