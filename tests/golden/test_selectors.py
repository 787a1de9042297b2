"""Selectors equal the published code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csc_matrix

from pipeline.kinds.selector import Budget, Room
from pipeline.selectors import diversity, rank, submodular, target, teachers
from tests.selectors.given import rows

DATA = Path(__file__).parent / "data"


def only(count: int, *places: int) -> np.ndarray:
    """1 at these places, 0 at the others."""
    return np.isin(np.arange(count), places).astype(float)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


@pytest.mark.parametrize("case", ["small", "dup_ties", "batched", "one_labeled_binary"])
def test_pcoreset_chooses_in_the_order_of_the_official_code(case: str) -> None:
    golden = np.load(DATA / "selection_pcoreset.npz")
    alpha, beta = golden[f"{case}__alpha"], golden[f"{case}__beta"]

    def mixed(kind: str) -> np.ndarray:
        ce, kd = golden[f"{case}__{kind}ce_logits"], golden[f"{case}__{kind}kd_logits"]
        return (1 - alpha) * softmax(ce) + alpha * softmax(kd / beta)

    points = np.concatenate([mixed(""), mixed("labeled_")])
    labelled = np.zeros(len(points), bool)
    labelled[len(mixed("")) :] = True
    candidates = rows(len(points), p=points, labelled=labelled.astype(float))
    budget = Budget(rows=int(golden[f"{case}__budget"]))

    order = diversity.farthest(points, labelled, Room(candidates, budget, ~labelled))
    assert order == golden[f"{case}__order_pcoreset"].tolist()

    decision = diversity.pcoreset(vector="p", labelled="labelled")(candidates, budget, 0)
    assert set(np.flatnonzero(decision.kept)) == set(order)
    assert set(decision.reason[labelled]) == {"labelled"}


@pytest.mark.parametrize(("start", "case"), [((), "naive"), ((4, 9, 100), "init_4_9_100")])
def test_facility_location_chooses_in_the_order_of_apricot(start: tuple[int, ...], case: str) -> None:
    golden = np.load(DATA / "selection_facility_location.npz")
    unit = golden["X"] / np.linalg.norm(golden["X"], axis=1, keepdims=True)
    similarity = np.round((1 + unit @ unit.T) / 2, 6)
    covered = similarity[list(start)].max(0, initial=0.0)
    room = Room(rows(250), Budget(rows=30), only(250, *start) == 0)
    order = submodular.lazily(csc_matrix(similarity), covered, room)
    assert order == golden[f"apricot_fl_{case}_order"].tolist()
    if case == "naive":
        total = [similarity[order[:n]].max(0).sum() for n in range(1, 31)]
        np.testing.assert_allclose(np.diff([0, *total]), golden["apricot_fl_naive_gains"], atol=1e-4)


@pytest.mark.parametrize("redundancy", [0.4, 1.0])
def test_graph_cut_chooses_as_submodlib(redundancy: float) -> None:
    golden = np.load(DATA / "selection_facility_location.npz")
    order = golden[f"submodlib_graphcut_lambda{redundancy}_order"].tolist()
    choose = submodular.graph_cut(vector="x", redundancy=redundancy, labelled="none")
    for count in range(1, 31):
        kept = choose(rows(250, x=golden["X"]), Budget(rows=count), 0).kept
        assert set(np.flatnonzero(kept)) == set(order[:count])


@pytest.mark.parametrize(("method", "case"), [("disparity_min", "dispmin"), ("disparity_sum", "dispsum")])
def test_disparity_chooses_as_submodlib_from_its_first(method: str, case: str) -> None:
    golden = np.load(DATA / "selection_facility_location.npz")
    first, *order = golden[f"submodlib_{case}_order"].tolist()
    family = diversity if method == "disparity_min" else submodular
    choose = getattr(family, method)(vector="x", labelled="first")
    for count in range(1, 30):
        decision = choose(rows(250, x=golden["X"], first=only(250, first)), Budget(rows=count), 0)
        assert set(np.flatnonzero(decision.kept)) == set(order[:count])
        assert decision.reason[first] == "labelled"


@pytest.mark.parametrize("ratio", ["0.5", "0.3", "0.1"])
def test_miniplm_keeps_what_the_official_code_keeps(ratio: str) -> None:
    golden = np.load(DATA / "selection_miniplm.npz")
    candidates = rows(1000, small=golden["mean_nll_ref"], large=golden["mean_nll_teacher"])
    decision = rank.miniplm(reference="small", teacher="large", ratio=float(ratio))(candidates, Budget(), 0)
    assert np.flatnonzero(decision.kept).tolist() == golden[f"kept_{ratio}"].tolist()
    assert set(decision.reason[~decision.kept]) == {"below_ratio"}


def test_less_has_the_influence_of_the_official_code_and_keeps_its_best() -> None:
    golden = np.load(DATA / "selection_less.npz")
    features = np.concatenate(
        [np.concatenate([golden[f"{of}_grad_ckpt{n}"] for of in ("train", "val")]) for n in (10, 20)], axis=1
    )
    tasks = np.array(["train"] * 300 + [f"task {i // 2}" for i in range(18)], object)
    aims, rates = only(318, *range(300, 318)), tuple(golden["ckpt_lr"].tolist())
    found = target.influence(features, aims > 0, tasks, rates)[:300]
    np.testing.assert_allclose(found, golden["influence"], atol=1e-6)
    candidates = rows(318, grad=features, aims=aims, domains=tasks)
    decision = target.less(vector="grad", target="aims", rates=rates)(candidates, Budget(rows=30), 0)
    assert set(np.flatnonzero(decision.kept)) == set(golden["top30"])
    assert set(decision.reason[300:]) == {"target"}


@pytest.mark.parametrize("source", ["very_close", "far"])
def test_a_task_is_as_similar_as_the_official_code_says(source: str) -> None:
    """But for PARC's ties, which their code takes for 1e-17 apart."""
    golden = np.load(DATA / "selection_task_similarity.npz")
    features, outcomes, labels = (golden[name] for name in (f"feat_{source}", f"prob_{source}", "y"))
    assert 100 * teachers.parc(features, labels) == pytest.approx(golden[f"PARC_full_{source}"], abs=0.12)
    assert 100 * teachers.knn(features, labels) == pytest.approx(golden[f"kNN1_{source}"], abs=1e-6)
    assert teachers.h_score(features, labels) == pytest.approx(golden[f"HScore_{source}"], abs=1e-3)
    assert teachers.leep(outcomes, labels) == pytest.approx(golden[f"LEEP_{source}"], abs=1e-6)


@pytest.mark.parametrize(("buckets", "ngrams", "smoothing"), [(10000, 2, 0.0), (1000, 2, 0.0), (1000, 3, 0.5)])
def test_dsir_weighs_as_the_official_code(buckets: int, ngrams: int, smoothing: float) -> None:
    golden, case = np.load(DATA / "selection_dsir.npz"), f"b{buckets}_n{ngrams}_s{smoothing}__"
    aims = np.arange(334) >= 294
    counts = [target.hashed(str(text), ngrams, buckets) for text in (*golden["raw"], *golden["target"])]
    weight = target.log_weights(counts, aims, ~aims, buckets, smoothing)[:294]
    np.testing.assert_allclose(weight, golden[f"{case}logw"], rtol=0, atol=1e-9)
    assert [target.tokens_of(c, ngrams) for c in counts[:294]] == golden[f"{case}len"].tolist()
    for noise, key in ((0.0, "top40"), (np.random.RandomState(0).gumbel(size=294), "gumbel_seed0_top40")):
        assert sorted(np.argsort(-(weight + noise), kind="stable")[:40]) == golden[f"{case}{key}"].tolist()
