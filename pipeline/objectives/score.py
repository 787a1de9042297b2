"""Objectives of denoisers: one that learns what samples are, and generators of one step that learn from another's.

All of them play: a generator is called on pure noise, `start` at t = 1, a denoiser on samples that are noised to the
`time` of a place (`model/noising.py`). A sample has F numbers; D is what a denoiser says that it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveFloat

from pipeline.core.methods import lazy
from pipeline.kinds.objective import AGAINST, JUDGED, Loss, Objective, Role, View, objective
from pipeline.model.noising import along, noised, signal, spread

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

Net = Callable[..., "torch.Tensor"]


@objective(reads=("networks", "draws", "truth", "weight_N"), item="place", teacher="none", divergence=False)
def denoising() -> Objective:
    """The squared error of what the judged model says of noised true samples, a mean over their numbers, over the
    variance of the noise: that of the velocity.

    Paper: Ho et al. 2020 (DDPM, arXiv 2006.11239); Salimans & Ho 2022 (arXiv 2202.00512) for the weight.
    Differs: times are even between the first and 1.
    """

    def loss(view: View) -> Loss:
        return Loss(_error(view, view.truth.to(view.draws["start"])), view.weight_N)

    return loss


@objective(reads=("networks", "draws", "weight_N"), item="place", teacher="none", divergence=False)
def following(*, made_by: Role = "student") -> Objective:
    """As `score.denoising`, of samples that another model of the training makes now: the judged one comes to know what
    that one makes.

    Paper: Luo et al. 2023 (Diff-Instruct, arXiv 2305.18455), the auxiliary score.
    Differs: nothing.
    """

    def loss(view: View) -> Loss:
        with torch.no_grad():
            made = generated(view.networks[made_by], view)
        return Loss(_error(view, made), view.weight_N)

    return loss


@objective(reads=("networks", "draws", "truth", "weight_N"), item="place", teacher="none", divergence=False)
def regression() -> Objective:
    """The squared distance of what the judged generator makes of the rows' noise to what was stored for it, a mean
    over its numbers: pairs that a teacher of many steps made.

    Paper: Luhman & Luhman 2021 (knowledge distillation in iterative generative models, arXiv 2101.02388).
    Differs: nothing.
    """

    def loss(view: View) -> Loss:
        made = generated(view.networks[JUDGED], view)
        return Loss(_mean((made - view.truth.to(made)).square()), view.weight_N)

    return loss


@objective(
    reads=("networks", "draws", "weight_N"),
    item="place",
    teacher="all",
    divergence=False,
    surrogate=lambda arguments: arguments["distance"] == "squared",
)
def implicit(
    *, fake: Role = "fake", distance: Literal["huber", "squared"] = "huber", c: PositiveFloat = 0.1
) -> Objective:
    """How far the scores of what the judged generator makes are from the teacher's, by its gradient: y (D_f - x) over
    the root of |y|^2 + c^2, where x is what it makes, y = D_T - D_f, and f (`fake`) a model that follows it.

    With `squared` it is over the mean distance |D_T - x| instead, which has no gradient: SiD.

    Paper: Luo et al. 2024 (SIM, arXiv 2410.16794) with the pseudo-Huber distance, in terms of samples
    instead of scores; Zhou et al. 2024 (SiD, arXiv 2404.04057) with alpha 1.
    Differs: of all times alike; theirs have a weight by time.
    """

    def loss(view: View) -> Loss:
        made = generated(view.networks[JUDGED], view)
        at, time_N = noised(made, view.draws["noise"], view.draws["time"]), view.draws["time"]
        teacher, mine = (view.networks[name](at, time_N) for name in (AGAINST, fake))
        y = teacher - mine
        if distance == "squared":
            length = _mean((teacher - made).abs()).detach().clamp_min(1e-5)
        else:
            length = (y.square().flatten(1).sum(1) + c * c).sqrt()
        return Loss((y * (mine - made)).flatten(1).sum(1) / length, view.weight_N)

    return loss


@objective(reads=("networks", "draws", "weight_N"), item="place", teacher="all", divergence=False, surrogate=True)
def bootstrap(*, steps: Annotated[int, Field(ge=2)] = 24, edge: Annotated[float, Field(ge=0)] = 1.0) -> Objective:
    """A generator learns the whole path of every noise e from itself: its signal y at a time s is to be one step of
    DDIM, of 1 / `steps`, after its own at t, y_s = f + r (y_t - f), where f is what the teacher says of x_t, and r the
    share by which the noise-to-signal ratio falls. At t = 1 it is to be what the teacher says of e, `edge` times as
    much. The squared distances are means over the numbers of a sample, over (1 - r)^2.

    The judged model tells y_t when it is called at 1 - t / 2, so what it makes in one step, at 1, is y_0: the sample.

    Paper: Gu et al. 2023 (BOOT, arXiv 2306.05544), the signal-ODE and its boundary.
    Differs: the weight is theirs of 1 / step^2 in terms of r, at most 100; no second step for the target.
    """

    def loss(view: View) -> Loss:
        start, judged, teacher = view.draws["start"], view.networks[JUDGED], view.networks[AGAINST]
        t_N = view.draws["time"].clamp_min(1 / steps)
        s_N = t_N - 1 / steps
        r_N = spread(s_N) * signal(t_N) / (spread(t_N) * signal(s_N))
        with torch.no_grad():
            mine = judged(start, 1 - t_N / 2)
            f = teacher(noised(mine, start, t_N), t_N)
            told = f + along(r_N, f) * (mine - f)
            begin = teacher(start, torch.ones_like(t_N))
        near_N = _mean((judged(start, 1 - s_N / 2) - told).square()) / (1 - r_N).square().clamp_min(0.01)
        edge_N = _mean((judged(start, torch.full_like(t_N, 0.5)) - begin).square())
        return Loss(near_N + edge * edge_N, view.weight_N)

    return loss


@objective(reads=("networks", "draws", "weight_N"), item="place", teacher="all", divergence=False, surrogate=True)
def distribution(*, fake: Role = "fake") -> Objective:
    """What the judged generator makes is moved to where the teacher sees more samples than it makes itself: the value
    is x times what a model that follows it (`fake`) says of noised x, less what the teacher does, without its gradient.

    Paper: Luo et al. 2023 (Diff-Instruct, arXiv 2305.18455), in terms of samples instead of scores.
    Differs: of all times alike.
    """

    def loss(view: View) -> Loss:
        made = generated(view.networks[JUDGED], view)
        return Loss(_moved(view, made, view.networks[fake]), view.weight_N)

    return loss


@objective(reads=("networks", "draws", "weight_N"), item="place", teacher="all", divergence=False, surrogate=True)
def sds() -> Objective:
    """Score distillation: what the judged model makes is moved to what the teacher says of it when it is noised; the
    value is x times x - D_T, without its gradient. It seeks modes: what is made varies less than true samples do.

    Paper: Poole et al. 2023 (DreamFusion, arXiv 2209.14988), in terms of samples instead of noise.
    Differs: of all times alike, and without guidance.
    """

    def loss(view: View) -> Loss:
        made = generated(view.networks[JUDGED], view)
        return Loss(_moved(view, made, None), view.weight_N)

    return loss


@objective(reads=("networks", "draws", "weight_N"), item="place", teacher="all", divergence=False, surrogate=True)
def domain(*, fake: Role = "fake", share: Annotated[float, Field(ge=0, le=1)] = 0.8) -> Objective:
    """A share of `score.distribution`, which lets what is made vary as it may, and the rest of `score.sds`, which is
    steadier.

    Paper: Cheng et al. 2024 (DreamPolish, arXiv 2411.01602), domain score distillation.
    Differs: theirs has classifier-free guidance in the place of the teacher by itself, whose weights were not found;
    this teacher knows no text.
    """

    def loss(view: View) -> Loss:
        made = generated(view.networks[JUDGED], view)
        moved_N = share * _moved(view, made, view.networks[fake]) + (1 - share) * _moved(view, made, None)
        return Loss(moved_N, view.weight_N)

    return loss


@objective(
    reads=("networks", "draws", "truth", "weight_N"), item="place", teacher="none", alone=False, divergence=False
)
def rival(*, made_by: Role = "student", wins: bool = True, apart: PositiveFloat = 1.1) -> Objective:
    """As `score.following`, of those of two samples that another model makes, of a noise and of `apart` times as much,
    that win: the nearer ones to a true sample of the step; or of those that lose.

    Paper: Zhao et al. 2025 (Distillation-DPO, arXiv 2504.11447), the auxiliary models of winners and losers.
    Differs: a sample is a point, whose distance is to the nearest true one, in place of a scan's Chamfer distance.
    """

    def loss(view: View) -> Loss:
        with torch.no_grad():
            made = _rivals(view.networks[made_by], view, apart)[0 if wins else 1]
        return Loss(_error(view, made), view.weight_N)

    return loss


@objective(
    reads=("networks", "draws", "truth", "weight_N"),
    item="place",
    teacher="all",
    alone=False,
    divergence=False,
    surrogate=True,
)
def preference(
    *,
    winner: Role = "winner",
    loser: Role = "loser",
    push: Annotated[float, Field(ge=0, lt=1)] = 0.2,
    apart: PositiveFloat = 1.1,
) -> Objective:
    """As `score.distribution`, of the winning sample of two by the model that follows winners, less `push` times the
    same of the losing one: it is moved away from where the teacher sees more samples than losers are.

    Paper: Zhao et al. 2025 (Distillation-DPO, arXiv 2504.11447), the generator's gradient as the paper has it.
    Differs: the released code's has none (it multiplies by (x + noise) - x); the loser's step is a share of the
    winner's and no longer than 1, since without a bound it diverges.
    """

    def loss(view: View) -> Loss:
        won, lost = _rivals(view.networks[JUDGED], view, apart)
        value_N = _moved(view, won, view.networks[winner]) - push * _moved(view, lost, view.networks[loser], 1.0)
        return Loss(value_N, view.weight_N)

    return loss


def _moved(view: View, made: torch.Tensor, fake: Net | None, most: float | None = None) -> torch.Tensor:
    """The value whose gradient moves samples to where the teacher sees more of them than are made, as `fake` tells,
    [N]; without one, to where it sees any. `most` is how far at most."""
    with torch.no_grad():
        at, time_N = noised(made, view.draws["noise"], view.draws["time"]), view.draws["time"]
        way = (made if fake is None else fake(at, time_N)) - view.networks[AGAINST](at, time_N)
        if most is not None:
            way = way * (most / along(way.flatten(1).norm(dim=1), way).clamp_min(most))
    return (way * made).flatten(1).sum(1)


def _rivals(generator: Net, view: View, apart: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Of two samples of every noise the nearer one to a true sample, and the other, [N, ...] each."""
    start = view.draws["start"]
    both = [generator(noise, start.new_ones(len(start))) for noise in (start, apart * start)]
    with torch.no_grad():
        true = view.truth.to(start).flatten(1)
        far = [torch.cdist(made.flatten(1), true).amin(1) if len(true) else made.flatten(1).sum(1) for made in both]
        first = along(far[0] <= far[1], start)
    one, other = both
    return torch.where(first, one, other), torch.where(first, other, one)


def generated(generator: Net, view: View) -> torch.Tensor:
    """What a generator makes of the noise of the rows, in one step."""
    start = view.draws["start"]
    return generator(start, start.new_ones(len(start)))


def _error(view: View, clean: torch.Tensor) -> torch.Tensor:
    """The squared error of the judged model on samples that are noised, over the variance of the noise, [N]."""
    time_N = view.draws["time"]
    said = view.networks[JUDGED](noised(clean, view.draws["noise"], time_N), time_N)
    return _mean((said - clean).square()) / spread(time_N).square()


def _mean(each: torch.Tensor) -> torch.Tensor:
    """Over the numbers of a sample, [N]."""
    return each.flatten(1).mean(1)
