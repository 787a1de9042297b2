"""Every file has a home: a room that says in one sentence what belongs there, and a test that a reader can find."""

from __future__ import annotations

import ast
from collections.abc import Collection
from pathlib import Path

import pytest

from pipeline.core.methods import MINE

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pipeline"
MOST_FLAT = 8
# A shorter file may be told by the tests of those that use it.
SHORT = 40
# From the ground up; a new room needs a line here and one in the layers of pyproject.toml.
ROOMS = (
    "tables", "core", "kinds", "text", "model", "memo", "nets", "gateway",
    "origins", "builders", "sources", "verifiers", "backends", "rules", "operators", "scorers", "readers", "judges",
    "retrievers", "mixtures", "selectors", "transforms", "objectives", "networks", "augmentations", "feeds",
    "evaluators", "exporters", "executors",
    "asking", "training", "checking", "report", "laws", "stages", "plan", "viewing", "commands",
)  # fmt: skip
# File of a room -> the test below tests/ that covers it, where that is not tests/<room>/test_<file>.py.
COVERED = {
    "asking/meter.py": "asking/test_ask.py",
    "asking/read.py": "asking/test_ask.py",
    "backends/vllm.py": "laws/test_vllm_engine.py",
    "checking/pages.py": "stages/test_quality.py",
    "checking/suites.py": "stages/test_quality.py",
    "checking/validation.py": "stages/test_quality.py",
    "commands/ask.py": "commands/test_doctor.py",
    "commands/entries.py": "commands/test_preview.py",
    "commands/memo.py": "commands/test_parser.py",
    "commands/methods.py": "commands/test_parser.py",
    "commands/preview_screen.py": "commands/test_preview.py",
    "commands/query.py": "commands/test_parser.py",
    "commands/screen.py": "commands/test_parser.py",
    "commands/status.py": "e2e/test_commands.py",
    "commands/take.py": "commands/test_share.py",
    "commands/tidy.py": "e2e/test_commands.py",
    "commands/sizes.py": "e2e/test_commands.py",
    "commands/stored.py": "e2e/test_verify.py",
    "commands/verify.py": "e2e/test_verify.py",
    "commands/withdraw.py": "e2e/test_withdraw.py",
    "commands/works.py": "commands/test_estimate.py",
    "commands/unroll.py": "plan/test_unroll.py",
    "commands/upgrade.py": "commands/test_new.py",
    "commands/use.py": "commands/test_parser.py",
    "core/graph.py": "plan/test_identities.py",
    "core/settings.py": "core/test_run.py",
    "core/stage.py": "core/test_driver.py",
    "core/parts.py": "core/test_driver.py",
    "executors/local.py": "laws/test_executors.py",
    "executors/messenger.py": "executors/test_ray.py",
    "memo/home.py": "executors/test_slot.py",
    "gateway/batch_state.py": "gateway/test_batch.py",
    "gateway/completions.py": "backends/test_http_answers.py",
    "gateway/connection.py": "backends/test_http.py",
    "gateway/pace.py": "backends/test_http.py",
    "gateway/rounds.py": "backends/test_http.py",
    "kinds/backend.py": "laws/test_backends.py",
    "asking/examine.py": "stages/test_evaluate.py",
    "kinds/evaluator.py": "laws/test_evaluators.py",
    "laws/evaluator.py": "laws/test_evaluators.py",
    "evaluators/calibration.py": "evaluators/test_answers.py",
    "evaluators/memorisation.py": "evaluators/test_answers.py",
    "evaluators/cost.py": "stages/test_evaluate.py",
    "stages/compare.py": "stages/test_evaluate.py",
    "model/speculative.py": "evaluators/test_acceptance.py",
    "readers/memorisation.py": "readers/test_confidence.py",
    "kinds/mixture.py": "laws/test_mixtures.py",
    "kinds/objective.py": "laws/test_objectives.py",
    "kinds/scorer.py": "laws/test_scorers.py",
    "kinds/selector.py": "laws/test_selectors.py",
    "kinds/source.py": "laws/test_sources.py",
    "kinds/verifier.py": "verifiers/test_verifiers.py",
    "laws/mixture.py": "laws/test_mixtures.py",
    "mixtures/weights.py": "golden/test_mixtures.py",
    "laws/objective.py": "laws/test_objectives.py",
    "laws/reader.py": "laws/test_readers.py",
    "kinds/operator.py": "laws/test_operators.py",
    "laws/operator.py": "laws/test_operators.py",
    "kinds/judge.py": "laws/test_judges.py",
    "laws/judge.py": "laws/test_judges.py",
    "kinds/retriever.py": "laws/test_retrievers.py",
    "laws/retriever.py": "laws/test_retrievers.py",
    "kinds/rule.py": "laws/test_rules.py",
    "laws/rule.py": "laws/test_rules.py",
    "laws/scorer.py": "laws/test_scorers.py",
    "laws/selector.py": "laws/test_selectors.py",
    "laws/verifier.py": "laws/test_verifiers.py",
    "memo/ledger.py": "backends/test_http.py",
    "transforms/classes.py": "stages/test_transform.py",
    "transforms/prototypes.py": "transforms/test_subclasses.py",
    "transforms/aspects.py": "transforms/test_subclasses.py",
    "builders/heads.py": "stages/test_build.py",
    "kinds/transform.py": "laws/test_transforms.py",
    "laws/builder.py": "laws/test_builders.py",
    "laws/transform.py": "laws/test_transforms.py",
    "model/heads.py": "stages/test_build.py",
    "origins/fresh.py": "e2e/test_recipes.py",
    "origins/gguf.py": "stages/test_real_model.py",
    "plan/faults.py": "plan/test_resolve.py",
    "plan/map.py": "architecture/test_map.py",
    "plan/pin.py": "commands/test_new.py",
    "plan/status.py": "e2e/test_commands.py",
    "readers/likelihood.py": "e2e/test_graph.py",
    "report/curves.py": "stages/test_report.py",
    "report/facts.py": "stages/test_report.py",
    "report/made.py": "stages/test_report.py",
    "report/page.py": "stages/test_report.py",
    "report/transparency.py": "report/test_elicited.py",
    "report/tables.py": "report/test_elicited.py",
    "report/results.py": "stages/test_report.py",
    "selectors/mixture.py": "laws/test_selectors.py",
    "selectors/reasoning.py": "selectors/test_rank.py",
    "sources/hub.py": "stages/test_ingest.py",
    "sources/procedural.py": "stages/test_ingest.py",
    "stages/acquire.py": "origins/test_remote.py",
    "stages/distill.py": "training/test_across.py",
    "tables/rules.py": "tables/test_sql.py",
    "tables/tensors.py": "laws/test_tensors.py",
    "text/contamination.py": "golden/test_decontam.py",
    "text/conversations.py": "stages/test_ingest.py",
    "text/duplicates.py": "stages/test_curate.py",
    "text/intake.py": "stages/test_ingest.py",
    "text/marks.py": "verifiers/test_verifiers.py",
    "text/items.py": "stages/test_curate.py",
    "text/novelty.py": "golden/test_novelty.py",
    "tables/manifest.py": "training/test_fit.py",
    "training/adapter.py": "training/test_loop.py",
    "training/card.py": "training/test_choices.py",
    "training/fitting.py": "training/test_fit.py",
    "training/watch.py": "training/test_choices.py",
    "training/proof.py": "commands/test_preview_training.py",
    "training/optimizers.py": "training/test_loop.py",
    "training/recipe.py": "training/test_loop.py",
    "training/reduce.py": "laws/test_objectives.py",
    "training/batches.py": "training/test_rows.py",
    "exporters/axolotl.py": "stages/test_export.py",
    "exporters/gguf.py": "stages/test_export.py",
    "exporters/hub.py": "stages/test_export.py",
    "exporters/llamafactory.py": "stages/test_export.py",
    "exporters/signals.py": "stages/test_export.py",
    "exporters/trl.py": "stages/test_export.py",
    "kinds/exporter.py": "laws/test_exporters.py",
    "laws/exporter.py": "laws/test_exporters.py",
    "report/card.py": "stages/test_export.py",
    "tables/plain.py": "laws/test_exporters.py",
    "origins/dense.py": "networks/test_dense.py",
    "origins/pairs.py": "networks/test_pairs.py",
    "verifiers/dense.py": "verifiers/test_verifiers.py",
    "verifiers/programs.py": "verifiers/test_verifiers.py",
    "augmentations/copies.py": "laws/test_augmentations.py",
    "augmentations/masks.py": "laws/test_augmentations.py",
    "origins/analytic.py": "networks/test_masked.py",
    "augmentations/mixing.py": "laws/test_augmentations.py",
    "augmentations/moves.py": "laws/test_augmentations.py",
    "kinds/augmentation.py": "laws/test_augmentations.py",
    "feeds/rollout.py": "training/test_fit.py",
    "kinds/feed.py": "training/test_fit.py",
    "origins/text.py": "model/test_folder.py",
    "sources/letters.py": "e2e/test_recipes.py",
    "training/chunks.py": "training/test_loop.py",
    "training/checkpoints.py": "training/test_loop.py",
    "training/mixture.py": "training/test_rollouts.py",
    "model/pieces.py": "training/test_across.py",
    "objectives/across.py": "golden/test_objectives_sets.py",
    "training/places.py": "laws/test_networks.py",
    "training/shadow.py": "training/test_loop.py",
    "kinds/network.py": "laws/test_networks.py",
    "model/distributions.py": "laws/test_objectives.py",
    "model/taps.py": "laws/test_networks.py",
    "networks/language.py": "laws/test_networks.py",
    "objectives/feature.py": "laws/test_objectives.py",
    "origins/vision.py": "networks/test_classifier.py",
    "networks/graph.py": "laws/test_networks.py",
    "networks/points.py": "laws/test_networks.py",
    "networks/images.py": "laws/test_networks.py",
    "origins/diffusion.py": "networks/test_extras.py",
    "model/noising.py": "training/test_plays.py",
    "origins/points.py": "sources/test_points.py",
    "builders/denoisers.py": "laws/test_builders.py",
    "augmentations/crops.py": "laws/test_augmentations.py",
    "objectives/score.py": "laws/test_objectives.py",
    "objectives/links.py": "golden/test_objectives_logits.py",
    "origins/graph.py": "sources/test_graphs.py",
    "tables/graphs.py": "sources/test_graphs.py",
    "nets/pictures.py": "laws/test_networks.py",
    "nets/graphs.py": "laws/test_networks.py",
    "nets/points.py": "laws/test_networks.py",
    "nets/denoisers.py": "laws/test_networks.py",
    "nets/letters.py": "laws/test_networks.py",
    "nets/pairs.py": "laws/test_networks.py",
    "nets/kept.py": "laws/test_networks.py",
    "nets/library.py": "networks/test_extras.py",
    "model/elastic.py": "laws/test_networks.py",
    "builders/parts.py": "laws/test_networks.py",
    "augmentations/architecture.py": "laws/test_augmentations.py",
    "objectives/exits.py": "golden/test_objectives_build.py",
    "objectives/targets.py": "golden/test_objectives_build.py",
    "objectives/preference.py": "golden/test_objectives.py",
    "tables/lists.py": "laws/test_networks.py",
    "commands/view.py": "viewing/test_app.py",
    "viewing/answer.py": "viewing/test_app.py",
    "viewing/browse.py": "viewing/test_app.py",
    "viewing/compare.py": "viewing/test_app.py",
    "viewing/lineage.py": "commands/test_lineage.py",
    "viewing/tables.py": "viewing/test_app.py",
    "viewing/tokens.py": "viewing/test_app.py",
    "verifiers/numeric.py": "verifiers/test_verifiers.py",
    "verifiers/symbolic.py": "verifiers/test_verifiers.py",
    "verifiers/text.py": "verifiers/test_verifiers.py",
}
# A user's own methods are the user's.
OURS = [path for room in ROOMS for path in sorted((PACKAGE / room).glob("*.py")) if path.stem != MINE]
FILES = [path for path in OURS if path.name != "__init__.py"]


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_few_files_lie_flat() -> None:
    flat = sorted(path.name for path in PACKAGE.glob("*.py"))
    rooms = "\n".join(f"  {room}/: {sentence(room)}" for room in ROOMS)
    assert len(flat) <= MOST_FLAT, f"{flat} lie flat in pipeline/; a new file belongs into a room:\n{rooms}"


def sentence(room: str) -> str:
    return ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text("utf-8"))) or ""


def test_every_folder_is_a_room() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(ROOMS)
    deeper = [
        str(p.relative_to(ROOT)) for room in ROOMS for p in (PACKAGE / room).rglob("*.py") if p.parent.name != room
    ]
    assert deeper == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_in_one_sentence_what_belongs_there(room: str) -> None:
    said = sentence(room)
    assert said.endswith(".") and said.count(". ") == 0 and "\n" not in said, f"pipeline/{room}/__init__.py: {said!r}"


def test_every_file_has_a_test_that_can_be_found() -> None:
    lost = [
        f"{name_of(path)}: write tests/{path.parent.name}/test_{path.name}, or name the test that covers it in COVERED"
        for path in FILES
        if not own_test(path).exists() and len(path.read_text("utf-8").splitlines()) > SHORT
        and name_of(path) not in COVERED
    ]  # fmt: skip
    assert lost == []


def own_test(path: Path) -> Path:
    return ROOT / "tests" / path.parent.name / f"test_{path.name}"


def test_the_list_of_covered_files_is_true() -> None:
    there = {name_of(path): path for path in FILES}
    stale = [
        name
        for name, test in COVERED.items()
        if name not in there or own_test(there[name]).exists() or not (ROOT / "tests" / test).exists()
    ]
    assert stale == []


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Also not inside a room, and not where an import stands in a function."""
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    reads = {name: read_by(path, files.keys()) for name, path in files.items()}
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in reads[name]:
                visit(other, [*way, name])
            done.add(name)

    for name in files:
        visit(name, [])


def read_by(path: Path, files: Collection[str]) -> set[str]:
    """The files that a file imports."""
    imports = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.ImportFrom) and n.module]
    named = {f"{n.module}.{a.name}" for n in imports for a in n.names} | {str(n.module) for n in imports}
    return named & set(files)
