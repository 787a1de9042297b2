"""Every published value about objectives stands in `data/`, and a test reads it; or it is told why not."""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"
READERS = [*Path(__file__).parent.glob("test_objectives*.py"), Path(__file__).parents[1] / "builders/test_tokens.py"]
TESTS = "".join(file.read_text("utf-8") for file in READERS)
OBJECTIVES = (
    "adaspec", "adpo", "akl", "base_inputs", "bild", "distillkit_sparse", "distillm", "dpo_original", "first_topk",
    "hf_causal_lm_ce", "llavamod_mimic", "minillm_lmops", "minillm_trl", "miniplm", "mixkd", "nkd", "omp_tokensurgeon",
    "pskd", "taid", "taid_repo_divergences", "trl_gkd_jsd", "trl_gold_uld", "tsdkd", "uld_original",
)  # fmt: skip
VISION = (
    "bild_teacher_led", "dho_evaluate", "dist", "dkd", "dmjd_loss", "ffg2m_mode0", "ffg2m_mode3", "kd_T4", "makd",
    "mixkd_std", "nd_mixed", "nd_teacher_larger", "nkd_default", "nkd_temp2", "ofa_eps1p0_T1p0", "ofa_eps1p5_T1p0",
    "otd_gradbank", "pld_tau1", "prd", "sid_generator", "slidr_nce", "supcon", "uskd_int", "vl2v_adip",
)  # fmt: skip
GIVEN = [*(f"objectives_{name}" for name in OBJECTIVES), *(f"vision_{name}" for name in VISION)]
LEFT_OUT = {
    "objectives_base_inputs": "inputs alone, which every other file has again",
    "vision_otd_gradbank": "the projection on a bank of gradients, which `feature.trajectory` says it leaves out",
    "vision_sid_generator": "the denoisers that its loss is of are not in it, so no objective can be called",
}


@pytest.mark.parametrize("name", GIVEN)
def test_a_published_value_is_read_by_a_test_or_it_is_told_why_not(name: str) -> None:
    there, short = (DATA / f"{name}.npz").exists(), name.partition("_")[2]
    assert there != (name in LEFT_OUT)
    assert not there or f'"{short}"' in TESTS or f"{name}.npz" in TESTS
