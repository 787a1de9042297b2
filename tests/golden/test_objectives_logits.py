"""Equality of objectives over logits with published references; what is faulty in them is no target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.core import methods
from pipeline.kinds.objective import DenseTeacher, Loss, TopKTeacher, View, first_look
from pipeline.model import distributions, heads
from tests.golden.test_objectives import CLOSE, build, dense, evaluate, load, see, shifted, top_k


def read(name: str) -> dict[str, torch.Tensor]:
    """A file of classes: rows are places."""
    with np.load(Path(__file__).parent / "data" / f"vision_{name}.npz", allow_pickle=False) as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


def valued(name: str, view: View, **arguments: Any) -> Loss:
    """An objective with a first look, on all places at once."""
    method = methods.find("objective", name)
    made = method.factory(**method.arguments.model_validate(arguments).model_dump())
    reads = method.traits["reads"]
    return made(first_look(made, view, reads).restrict(reads))


# Method, arguments, file, keys of the value and of the gradient; values are means over seven places.
ALIGNED = [
    ("divergence.adaptive", {}, "akl", "mu0.5"),
    ("divergence.adaptive", {"head": 0.9}, "akl", "mu0.9"),
    ("divergence.tvd", {}, "distillm", "tv_distance"),
    ("divergence.tvd", {}, "taid_repo_divergences", "tvd"),
]


@pytest.mark.parametrize(("name", "arguments", "file", "key"), ALIGNED)
def test_a_divergence_equals_the_published_code(name: str, arguments: dict[str, Any], file: str, key: str) -> None:
    stored = load(file)
    student = stored["student_logits"].requires_grad_()
    loss = build(name, **arguments)(see(student, stored["labels"], dense(stored)))
    torch.testing.assert_close(evaluate(loss, student, 7), (stored[f"out_{key}"], stored[f"grad_{key}"]), **CLOSE)


def test_variation_counts_columns_of_minus_infinity_as_distillm_does() -> None:
    stored = load("distillm")
    for logits in ("student_logits", "teacher_logits"):
        stored[logits][..., -2:] = -torch.inf
    loss = build("divergence.tvd")(see(stored["student_logits"], stored["labels"], dense(stored)))
    torch.testing.assert_close(loss.value_N.mean(), stored["out_infvocab_tv_distance"], **CLOSE)


def test_variation_on_a_stored_top_k_equals_distillkits_bin_for_the_rest() -> None:
    stored = load("distillkit_sparse")
    student = stored["student_logits"].requires_grad_()
    loss = build("divergence.tvd")(see(student, stored["labels"], top_k(stored)))
    assert loss.value_N.sum() <= stored["sum_tvd_dense_T1"] + 1e-5
    key = "tvd_symmetric_uniform_T1.0"
    torch.testing.assert_close(evaluate(loss, student, 1), (stored[f"sum_{key}"], stored[f"grad_{key}"]), **CLOSE)


@pytest.mark.parametrize(("name", "key"), [("hinge", "hinge_marginNone"), ("logistic", "logistic_ranking")])
def test_pairs_of_a_stored_top_k_equal_distillkits(name: str, key: str) -> None:
    stored = load("distillkit_sparse")
    student = stored["student_logits"].requires_grad_()
    loss = build(f"ranking.{name}")(see(student, stored["labels"], top_k(stored)))
    torch.testing.assert_close(evaluate(loss, student, 7), (stored[f"out_{key}"], stored[f"grad_{key}"]), **CLOSE)


@pytest.mark.parametrize(
    ("key", "arguments"),
    [("default", {}), ("T3_g3p5", {"temperature": 3.0, "gamma": 3.5}), ("g0", {"gamma": 0.0})],
)
def test_nkd_equals_the_authors_code(key: str, arguments: dict[str, Any]) -> None:
    stored = load("nkd")
    student = stored["student_logits"].requires_grad_()
    loss = build("divergence.nkd", **arguments)(see(student, stored["labels"], DenseTeacher(stored["teacher_logits"])))
    torch.testing.assert_close(evaluate(loss, student, 6), (stored[f"out_{key}"], stored[f"grad_{key}"]), **CLOSE)


CLASSES: list[tuple[str, dict[str, Any], str, tuple[str, str, str | None]]] = [
    ("divergence.nkd", {}, "nkd_default", ("logit_s", "logit_t", "gt_label")),
    ("divergence.nkd", {"temperature": 2.0, "gamma": 1.0}, "nkd_temp2", ("logit_s", "logit_t", "gt_label")),
    ("divergence.decoupled", {}, "dkd", ("s_logits", "t_logits", "labels")),
    ("divergence.forward", {"temperature": 4.0, "times_tau_squared": True}, "kd_T4", ("s_logits", "t_logits", None)),
    ("relation.dist", {}, "dist", ("logits_student", "logits_teacher", None)),
    ("ranking.pld", {"k": None}, "pld_tau1", ("logits_student", "logits_teacher", "label")),
]


@pytest.mark.parametrize(("name", "arguments", "file", "keys"), CLASSES)
def test_an_objective_over_classes_equals_the_published_code(
    name: str, arguments: dict[str, Any], file: str, keys: tuple[str, str, str | None]
) -> None:
    stored = read(file)
    student, teacher = (stored[key] for key in keys[:2])
    labels = torch.zeros(len(student)) if keys[2] is None else stored[keys[2]]
    student.requires_grad_()
    loss = build(name, **arguments)(see(student, labels.long(), DenseTeacher(teacher)))
    value, gradient = evaluate(loss, student, len(labels))
    named = next(key for key in ("loss", "loss_mean") if key in stored)
    slope = next(key for key in ("grad_s", "grad_s_of_mean") if key in stored)
    torch.testing.assert_close((value, gradient), (stored[named].to(value), stored[slope].to(gradient)), **CLOSE)


def test_logits_over_their_deviation_equal_the_mixup_studys() -> None:
    """Its classes are a term of their own, and its divergence comes 0.9 times."""
    stored = read("mixkd_std")
    student = stored["logit_s"].requires_grad_()
    seen = see(student, torch.zeros(len(student), dtype=torch.long), DenseTeacher(stored["logit_t"]))
    divergence = 0.9 * build("divergence.standardised")(seen).value_N.mean()
    torch.testing.assert_close(divergence.detach(), stored["loss_div"], **CLOSE)
    log_q = (student / student.std(1, keepdim=True)).log_softmax(1)
    classes = -0.1 * (stored["target"] * log_q).sum(1).mean()
    torch.testing.assert_close(classes.detach(), stored["loss_cls"], **CLOSE)
    (gradient,) = torch.autograd.grad(classes + divergence, student)
    torch.testing.assert_close(gradient, stored["grad_s"], **CLOSE)
    other = load("mixkd")
    student = other["student_logits"].requires_grad_()
    seen = see(student, torch.zeros(6, dtype=torch.long), DenseTeacher(other["teacher_logits"]))
    value, gradient = evaluate(build("divergence.standardised")(seen), student, 6)
    torch.testing.assert_close((value * 0.9, gradient * 0.9), (other["out_div"], other["grad_div"]), **CLOSE)


def test_links_equal_ffg2ms_code() -> None:
    """Its three parts, each a mean over its own items: labelled nodes, neighbours with each node itself, and links."""
    stored = read("ffg2m_mode0")
    student, lamb = stored["student_logits"].requires_grad_(), float(stored["lamb"])
    links, labelled = stored["edges_no_self_loops"].long(), stored["idx_labeled"].long()
    # Its list has each node's link with itself, which is no link here.
    assert set(map(tuple, stored["edges_with_self_loops"].T.tolist())) == {
        *map(tuple, links.T.tolist()), *((i, i) for i in range(len(student))),
    }  # fmt: skip
    view = replace(see(student, stored["labels"].long(), DenseTeacher(stored["teacher_logits"])), links_2E=links)
    loss = lamb * build("supervised.cross_entropy")(view).value_N[labelled].mean()
    parts = [loss]
    for name, arguments in (("links.low", {}), ("links.high", {"temperature": float(stored["tau"])})):
        parts.append((1 - lamb) * build(name, **arguments)(view).value_N.mean())
    torch.testing.assert_close(torch.stack(parts).detach(), stored["returned"].to(loss), **CLOSE)
    (gradient,) = torch.autograd.grad(sum(parts), student)
    torch.testing.assert_close(gradient, stored["grad_logits"], **CLOSE)
    only = read("ffg2m_mode3")
    (gradient,) = torch.autograd.grad(_sum_of_low(only), only["student_logits"])
    torch.testing.assert_close(gradient, only["grad_logits"], **CLOSE)


def _sum_of_low(stored: dict[str, torch.Tensor]) -> torch.Tensor:
    """Its labelled and its low part alone."""
    student, lamb = stored["student_logits"].requires_grad_(), float(stored["lamb"])
    teacher = DenseTeacher(stored["teacher_logits"])
    view = see(student, stored["labels"].long(), teacher)
    view = replace(view, links_2E=stored["edges_no_self_loops"].long())
    labelled = build("supervised.cross_entropy")(view).value_N[stored["idx_labeled"].long()]
    return lamb * labelled.mean() + (1 - lamb) * build("links.low")(view).value_N.mean()


def prototypes(rows_VD: torch.Tensor) -> Any:
    """A head of `heads.unit` that begins with these."""
    linear = torch.nn.Linear(rows_VD.shape[1], rows_VD.shape[0], bias=False)
    linear.weight = torch.nn.Parameter(rows_VD)
    return heads.unit(linear)


def test_heads_of_prototypes_of_old_tasks_equal_prds_relation() -> None:
    """Of the model before and of the one that learns, a head a task."""
    stored = read("prd")
    features, total = stored["features"].requires_grad_(), torch.zeros(())
    new, old = ([prototypes(rows) for rows in stored[name][:2]] for name in ("protos_new", "protos_old"))
    for mine, before in zip(new, old, strict=True):
        teacher = DenseTeacher(before(stored["old_features"]).detach())
        view = see(mine(features), torch.zeros(6, dtype=torch.long), teacher)
        total = total + build("divergence.forward")(view).value_N.mean()
    gradient, of_first = torch.autograd.grad(total, (features, new[0].parametrizations.weight.original1))
    torch.testing.assert_close(total.detach(), stored["loss_relation"].to(total), **CLOSE)
    torch.testing.assert_close((gradient, of_first), (stored["grad_features"], stored["grad_proto0"]), **CLOSE)


def test_vanilla_kd_of_miniplm_is_the_cross_entropy_form() -> None:
    """It takes a mean over every sequence, and then one of these: `weight_N` says so."""
    stored = load("miniplm")
    counts = stored["loss_mask"].bool()
    student = stored["ref_or_student_logits"].requires_grad_()
    labels = stored["labels"].masked_fill(~counts, -100)
    view = see(student, labels, DenseTeacher(stored["teacher_logits"][counts]))
    view = replace(view, weight_N=(1 / counts.sum(1))[view.example_N])
    found = evaluate(build("divergence.forward", variant="code")(view), student, len(counts))
    expected = stored["out_vanilla_kd_mean_over_sequences"], stored["grad_vanilla_kd"]
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize(
    ("key", "arguments"),
    [
        ("softmax", {"c": 1.0}),
        ("softmax_tt0p3", {"c": 0.3, "student_c": 1.0}),
        ("linear", {"normalise": "linear"}),
    ],
)
def test_trusted_outcomes_equal_firsts_code(key: str, arguments: dict[str, Any]) -> None:
    """It sums over places and divides by its two sequences."""
    stored = load("first_topk")
    valid = stored["labels"] != -100
    probs = stored["teacher_topk_probs"][valid]
    teacher = TopKTeacher(stored["teacher_topk_ids"][valid].int(), probs.log(), 1 - probs.sum(1))
    student = stored["student_logits"].requires_grad_()
    loss = build("divergence.trusted", **arguments)(see(student, stored["labels"], teacher))
    torch.testing.assert_close(evaluate(loss, student, 2), (stored[f"out_{key}"], stored[f"grad_{key}"]), **CLOSE)


@pytest.mark.parametrize(
    ("name", "arguments", "key"),
    [
        ("teacher_led", {}, "t_k8_T3"),
        ("teacher_led", {"k": 4, "tau": 1.0}, "t_k4_T1"),
        ("bild", {"led": "student"}, "s_k8_T3"),
    ],
)
def test_differences_equal_bilds_code(name: str, arguments: dict[str, Any], key: str) -> None:
    stored = load("bild")
    student = stored["student_logits"].requires_grad_()
    everywhere = torch.zeros_like(stored["labels"])
    view = see(student, everywhere, DenseTeacher(stored["teacher_logits"].flatten(0, 1)))
    loss = build(f"ranking.{name}", **arguments)(view)
    torch.testing.assert_close(loss.value_N.detach(), stored[f"out_none_{key}"].flatten(), **CLOSE)
    torch.testing.assert_close(evaluate(loss, student, 1)[1], stored[f"grad_sum_{key}"], **CLOSE)


def test_differences_that_the_teacher_leads_equal_bilds_code_on_classes() -> None:
    stored = read("bild_teacher_led")
    student = stored["logits_s"].requires_grad_()
    labels = torch.zeros(student.shape[:2], dtype=torch.int64)
    view = see(student, labels, DenseTeacher(stored["logits_t"].flatten(0, 1)))
    value_N = build("ranking.teacher_led")(view).value_N
    torch.testing.assert_close(value_N.view_as(stored["loss"]), stored["loss"], **CLOSE)
    torch.testing.assert_close(torch.autograd.grad(value_N.sum(), student)[0], stored["grad_s_of_sum"], **CLOSE)


def test_bild_is_both_of_its_parts() -> None:
    stored = load("bild")
    everywhere = torch.zeros_like(stored["labels"])
    view = see(stored["student_logits"], everywhere, DenseTeacher(stored["teacher_logits"].flatten(0, 1)))
    parts = [stored[f"out_none_{led}_k8_T3"].flatten() for led in ("t", "s")]
    torch.testing.assert_close(build("ranking.bild")(view).value_N, parts[0] + parts[1], **CLOSE)


@pytest.mark.parametrize("share", [0.4, 0.2, 1.0])
@pytest.mark.parametrize("variant", ["paper", "code"])
def test_adaspec_equals_the_authors_code(share: float, variant: str) -> None:
    """`code` is what it does when it is told the number of places, ten."""
    stored = load("adaspec")
    draft, labels = stored["draft_logits"].requires_grad_(), stored["labels"]
    valid = labels[:, 1:] != -100
    view = shifted(draft, labels)
    given = {
        name: DenseTeacher(stored[key][:, :-1][valid])
        for name, key in (("teacher", "target_logits"), ("reference", "reference_logits"))
    }
    loss = valued("tokens.adaspec", replace(view, **given), share=share, variant=variant)  # type: ignore[arg-type]
    key = f"k{share}" + ("_n10" if variant == "code" else "")
    torch.testing.assert_close(evaluate(loss, draft, 10), (stored[f"out_{key}"], stored[f"grad_{key}"]), **CLOSE)


def test_entropies_are_those_of_tsd_kd() -> None:
    stored = load("tsdkd")
    for side in ("student", "teacher"):
        seen = distributions.entropy(distributions.log_probs(stored[f"{side}_logits"].flatten(0, 1)))
        torch.testing.assert_close(seen, stored[f"{side}_entropy"].flatten(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_uskd_equals_the_authors_code_and_the_papers_formula(variant: str) -> None:
    stored = read("uskd_int")
    student = stored["logit_s"].requires_grad_()
    method = methods.find("objective", "schedule.uskd")
    made = method.factory(variant=variant)
    own = made.modules({"last": 12, "outcomes": 10}, {})
    with torch.no_grad():
        own.weight.copy_(stored["fc_weight"])
        own.bias.copy_(stored["fc_bias"])
    view = see(student, stored["gt_label"].long())
    view = replace(view, features={"last": stored["fea_mid"]}, own=own)
    view = first_look(made, view, method.traits["reads"])
    value, gradient = evaluate(made(view), student, 6)
    if variant == "code":
        torch.testing.assert_close((value, gradient), (stored["loss"], stored["grad_logit_s"]), **CLOSE)
        (of_weak,) = torch.autograd.grad(made(view).value_N.mean(), own.weight)
        torch.testing.assert_close(of_weak, stored["grad_fc_weight"], **CLOSE)
    else:
        assert float(value) == pytest.approx(3.767307, abs=1e-5)
