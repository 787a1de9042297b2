"""Laws of augmentations: a function of a micro-batch and a draw, of which every row has an outcome of the batch's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from pipeline.core.methods import Method, find
from pipeline.errors import Refused
from pipeline.kinds.augmentation import Augmentation, Made
from pipeline.laws.law import Broken, arguments, build, must
from tests.laws.ours import named, ours

ROWS = 32


@dataclass(frozen=True)
class Case:
    """An augmentation with arguments."""

    method: Method
    augmentation: Augmentation
    told: str = ""

    def __str__(self) -> str:
        return self.method.name + self.told

    def made(self, seed: int = 0) -> Made:
        return self.augmentation(given(), torch.Generator().manual_seed(seed))


def given() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    hidden = torch.zeros(ROWS, 12, dtype=torch.int64)
    hidden[1::2, 8:] = -1
    image = torch.rand(ROWS, 3, 10, 12, generator=draw)
    cloud = {"points": torch.randn(ROWS, 9, 3, generator=draw), "there": torch.arange(9).expand(ROWS, 9) < 7}
    return {"image": image, "other": torch.arange(ROWS), "hidden": hidden, **cloud}


def it_is_a_function_of_the_draw(case: Case) -> None:
    torch.manual_seed(0)
    one = case.made()
    torch.manual_seed(1)
    two = case.made()
    must(torch.equal(one.row_R, two.row_R), "other rows")
    must(all(torch.equal(one.inputs[name], two.inputs[name]) for name in one.inputs), "other inputs")


def another_draw_is_another_batch(case: Case) -> None:
    """But for what draws nothing, whose rows then are the batch's own."""
    one, two = case.made(), case.made(1)
    for name in {*case.method.traits["takes"]} & {"image", "points"} or {"image"}:
        if case.method.traits["keeps_signals"]:
            must(torch.equal(one.inputs[name], given()[name][one.row_R]), "its rows are not the batch's")
        else:
            must(not torch.equal(one.inputs[name], two.inputs[name]), "it draws nothing")


def it_changes_nothing_in_place(case: Case) -> None:
    inputs, before = given(), given()
    case.augmentation(inputs, torch.Generator().manual_seed(0))
    must(inputs.keys() == before.keys(), "other names")
    must(all(torch.equal(inputs[name], before[name]) for name in before), "an input")


def rows_are_of_the_batch(case: Case) -> None:
    made = case.made()
    must(made.row_R.dtype == torch.int64 and made.row_R.min() >= 0 and made.row_R.max() < ROWS, "no rows of it")
    must(all(len(value) == len(made.row_R) for value in made.inputs.values()), "inputs and rows of other lengths")


def what_it_does_not_take_is_untouched(case: Case) -> None:
    made, before = case.made(), given()
    # Which of the points are there is of the points.
    taken = {*case.method.traits["takes"]} | ({"there"} if "points" in case.method.traits["takes"] else set())
    for name in before.keys() - taken:
        copies = len(made.row_R) // ROWS
        must(torch.equal(made.inputs[name], torch.cat([before[name]] * copies)), f"{name} is another")


def pictures_stay_pictures(case: Case) -> None:
    made = case.made().inputs["image"].detach()
    must(made.shape[1:] == (3, 10, 12), f"of the shape {list(made.shape)}")
    must(float(made.min()) >= -1e-6 and float(made.max()) <= 1 + 1e-6, "numbers that no picture has")


Law = Callable[[Case], None]
LAWS: tuple[Law, ...] = (
    it_is_a_function_of_the_draw,
    another_draw_is_another_batch,
    it_changes_nothing_in_place,
    rows_are_of_the_batch,
    what_it_does_not_take_is_untouched,
    pictures_stay_pictures,
)
CASES = [Case(m, build(m, a), "".join(map(str, a.values()))) for m in ours("augmentation") for a in arguments(m, {})]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("law", LAWS, ids=named)
def test_law(law: Law, case: Case) -> None:
    law(case)


def broken(make: Callable[[Mapping[str, torch.Tensor], torch.Generator], Made]) -> Case:
    return Case(find("augmentation", "moves.flipped"), make)


SAME = torch.arange(ROWS)
FAULTS: list[tuple[Law, Any]] = [
    (it_is_a_function_of_the_draw, lambda x, _: Made({**x, "image": torch.rand(x["image"].shape)}, SAME)),
    (another_draw_is_another_batch, lambda x, _: Made(x, SAME)),
    (it_changes_nothing_in_place, lambda x, _: Made({**x, "image": x["image"].mul_(0.5)}, SAME)),
    (rows_are_of_the_batch, lambda x, _: Made(x, SAME + 1)),
    (what_it_does_not_take_is_untouched, lambda x, _: Made({**x, "other": x["other"] + 1}, SAME)),
    (pictures_stay_pictures, lambda x, _: Made({**x, "image": x["image"] - 0.5}, SAME)),
]


@pytest.mark.parametrize(("law", "make"), FAULTS, ids=[law.__name__ for law, _ in FAULTS])
def test_a_wrong_augmentation_breaks_the_law(law: Law, make: Any) -> None:
    with pytest.raises(Broken):
        law(broken(make))


def test_every_size_is_used_now_and_then_by_all_rows() -> None:
    sampled = build(find("augmentation", "architecture.sampled"), {"layers": [1, 3], "widths": [4, 8, 16]})
    drawn = [sampled(given(), torch.Generator().manual_seed(seed)).inputs["shape"] for seed in range(40)]
    assert all(shape.shape == (ROWS, 2) and (shape == shape[0]).all() for shape in drawn)
    assert {tuple(shape[0].tolist()) for shape in drawn} == {(one, other) for one in (1, 3) for other in (4, 8, 16)}


def test_a_crop_is_what_is_near_one_of_the_points() -> None:
    crops = build(find("augmentation", "crops.clouds"), {"times": 3, "least": 0.5, "turned": False, "noise": 0.0})
    made = crops(given(), torch.Generator().manual_seed(0))
    points, there = made.inputs["points"], made.inputs["there"]
    assert made.row_R.tolist() == [*range(ROWS)] * 3 and torch.equal(points, given()["points"].repeat(3, 1, 1))
    assert not there[:, 7:].any() and {4, 5, 6, 7} >= set(there.sum(1).tolist()) >= {4, 7}
    far = torch.cdist(points, points).masked_fill(~given()["there"].repeat(3, 1)[:, None], torch.inf)
    for row, kept in zip(far, there, strict=True):
        nearest = [set(each.argsort()[: int(kept.sum())].tolist()) for each in row[:7]]
        assert set(kept.nonzero()[:, 0].tolist()) in nearest


def test_a_shift_moves_and_repeats_the_border() -> None:
    image = torch.arange(25.0).view(1, 1, 5, 5) / 25
    for seed in range(20):
        made = build(find("augmentation", "moves.shifted"), {"most": 1})(
            {"image": image}, torch.Generator().manual_seed(seed)
        )
        middle = made.inputs["image"][0, 0, 1:-1, 1:-1]
        assert any(
            torch.equal(middle, image[0, 0, 1 + y : 4 + y, 1 + x : 4 + x]) for y in (-1, 0, 1) for x in (-1, 0, 1)
        )


def test_a_whole_crop_is_the_picture() -> None:
    made = build(find("augmentation", "moves.cropped"), {"least": 1.0})(given(), torch.Generator().manual_seed(0))
    torch.testing.assert_close(made.inputs["image"], given()["image"], rtol=0, atol=1e-5)


def test_mixed_rows_have_the_outcome_of_the_larger_part_more_often() -> None:
    """With the share that is in the picture: each picture is flat here, so that it tells its parts."""
    image = torch.arange(2.0).repeat(2000)[:, None, None, None].expand(-1, 1, 2, 2)
    mixup = build(find("augmentation", "mixing.mixup"), {"alpha": 1.0})
    made = mixup({"image": image}, torch.Generator().manual_seed(0))
    part, outcome = made.inputs["image"][:, 0, 0, 0], image[made.row_R, 0, 0, 0]
    for low in (0.0, 0.25, 0.5, 0.75):
        there = (part > low) & (part < low + 0.25)
        assert outcome[there].mean() == pytest.approx(float(part[there].mean()), abs=0.06)


@pytest.mark.parametrize("run", [1, 2, 5])
def test_a_share_of_the_places_that_there_are_is_hidden_in_runs(run: int) -> None:
    masks = build(find("augmentation", "masks.places"), {"share": 0.5, "run": run})
    one, two = (masks(given(), torch.Generator().manual_seed(seed)).inputs["hidden"] for seed in (0, 1))
    assert torch.equal(one < 0, given()["hidden"] < 0) and not torch.equal(one, two)
    for row, places in zip(one.tolist(), (one >= 0).sum(1).tolist(), strict=True):
        runs = [set(row[i : min(i + run, places)]) for i in range(0, places, run)]
        assert all(len(each) == 1 for each in runs)
        assert sum(1 in each for each in runs) == round(0.5 * len(runs))


def test_copies_see_what_no_other_copy_does() -> None:
    masks = build(find("augmentation", "masks.disjoint"), {"share": 0.7, "copies": 3})
    made = masks(given(), torch.Generator().manual_seed(0))
    seen = (made.inputs["hidden"] == 0).unflatten(0, (3, ROWS)).sum(0)
    assert seen.max() == 1 and made.row_R.tolist() == [*range(ROWS)] * 3
    with pytest.raises(Refused, match="share some of them"):
        build(find("augmentation", "masks.disjoint"), {"share": 0.6, "copies": 3})


def test_a_share_of_the_patches_is_hidden() -> None:
    image = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = build(find("augmentation", "masks.patches"), {"share": 0.5, "size": 4})
    made = masks({"image": image}, torch.Generator().manual_seed(0)).inputs["image"]
    hidden = (made != image).view(4, 2, 4, 2, 4).permute(0, 1, 3, 2, 4).flatten(3).float().mean(3)
    assert hidden.flatten(1).sum(1).tolist() == [2.0] * 4
