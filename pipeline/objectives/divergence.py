"""Divergences between the teacher's distribution p and the student's q, one value per place.

Where its formula allows, one takes a dense teacher or a stored top-k (`distributions.outcomes`). Two distributions have
two questions of temperature: `temperature` softens both before they are compared. A gradient then shrinks as
1 / temperature^2; `times_tau_squared` multiplies the loss by temperature^2, which Hinton et al. do so that a mixture
with cross-entropy keeps its balance, and which GKD, DistiLLM and MiniLLM do not. At temperature 1 it changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.core.methods import lazy
from pipeline.errors import Refused
from pipeline.kinds.objective import Loss, Objective, View, objective

if TYPE_CHECKING:
    import torch

    from pipeline.model import distributions
else:
    torch = lazy("torch")
    distributions = lazy("pipeline.model.distributions")

Share = Annotated[float, Field(gt=0, lt=1)]
READS = ("student_NV", "teacher", "weight_N")


def is_divergence(given: Mapping[str, Any]) -> bool:
    """Whether it is one with these arguments: the released form is not 0 where the student is the teacher."""
    return given["variant"] == "paper"


@objective(reads=READS, item="place", teacher="any", divergence=is_divergence)
def forward(
    *,
    temperature: PositiveFloat = 1.0,
    times_tau_squared: bool = False,
    variant: Literal["paper", "code"] = "paper",
) -> Objective:
    """KL(p || q): the student covers all that the teacher finds likely. The usual distillation loss.

    Paper: Hinton et al. 2015 (arXiv 1503.02531); per token of a language model, Kim and Rush 2016 (arXiv 1606.07947).
    Differs: `variant: code` is the cross-entropy -sum p log q that DistiLLM, TAID and MiniPLM release under this name:
    the teacher's entropy is not subtracted, so the gradient is the same and the number is not.
    """
    return _compare(_between(variant), temperature, times_tau_squared)


@objective(reads=READS, item="place", teacher="any", divergence=True)
def reverse(*, temperature: PositiveFloat = 1.0, times_tau_squared: bool = False) -> Objective:
    """KL(q || p): the student keeps to what the teacher finds likely, and may leave out the rest.

    Paper: Gu et al. 2024, MiniLLM (arXiv 2306.08543), its single-step term.
    Differs: on tokens that are given, not sampled from the student.
    """
    return _compare(lambda log_p, log_q: distributions.kl(log_q, log_p), temperature, times_tau_squared)


@objective(reads=READS, item="place", teacher="any", divergence=True)
def jsd(*, beta: Share = 0.5, temperature: PositiveFloat = 1.0, times_tau_squared: bool = False) -> Objective:
    """Generalised Jensen-Shannon: beta KL(p || m) + (1 - beta) KL(q || m), where m = beta p + (1 - beta) q.

    Paper: Agarwal et al. 2024, GKD (arXiv 2306.13649), eq. 2.
    Differs: beta 0 and 1, where the formula is 0 and the released code puts the two KL instead, are refused: those are
    `divergence.forward` and `divergence.reverse`.
    """

    return _compare(lambda log_p, log_q: distributions.jsd(log_p, log_q, beta), temperature, times_tau_squared)


@objective(reads=READS, item="place", teacher="any", divergence=is_divergence)
def skew_forward(
    *,
    alpha: Share = 0.1,
    temperature: PositiveFloat = 1.0,
    times_tau_squared: bool = False,
    variant: Literal["paper", "code"] = "paper",
) -> Objective:
    """KL(p || alpha p + (1 - alpha) q): forward KL that cannot pass log(1 / alpha).

    Paper: Ko et al. 2024, DistiLLM (arXiv 2402.03898), the skew KL.
    Differs: `variant: code` is the released cross-entropy form, without the teacher's entropy: same gradient.
    """

    def between(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
        return _between(variant)(log_p, distributions.mixture(log_p, log_q, alpha))

    return _compare(between, temperature, times_tau_squared)


@objective(reads=READS, item="place", teacher="any", divergence=True)
def skew_reverse(*, alpha: Share = 0.1, temperature: PositiveFloat = 1.0, times_tau_squared: bool = False) -> Objective:
    """KL(q || (1 - alpha) p + alpha q): reverse KL that cannot pass log(1 / alpha).

    Paper: Ko et al. 2024, DistiLLM (arXiv 2402.03898), the skew reverse KL.
    Differs: nothing. (DistiLLM-2 stops the gradient of q inside the mixture; this does not.)
    """

    def between(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
        return distributions.kl(log_q, distributions.mixture(log_q, log_p, alpha))

    return _compare(between, temperature, times_tau_squared)


@objective(reads=READS, item="place", teacher="any", divergence=True)
def tvd(*, temperature: PositiveFloat = 1.0, times_tau_squared: bool = False) -> Objective:
    """The total variation distance, half of sum |p - q|: how often a draft of the student's would be rejected.

    Paper: Ko et al. 2024, DistiLLM (arXiv 2402.03898), and Wen et al. 2023 (arXiv 2307.15190), who derive it for text.
    Differs: nothing. Where the two hardly overlap its gradient vanishes: begin with `divergence.forward`.
    """
    return _compare(lambda log_p, log_q: distributions.variation(log_p, log_q), temperature, times_tau_squared)


@objective(
    reads=("student_NV", "teacher", "settled_NS", "weight_N"),
    item="place",
    alone=False,
    teacher="all",
    divergence=False,
    surrogate=True,
)
def tvd_pp(*, statistics: Literal["batch", "position"] = "batch") -> Objective:
    """The policy gradient of the total variation with a normalised reward: -sum sg(q A) log q.

    The reward of an outcome is 1 where the teacher finds it likelier than the student does; A is it less its mean over
    its deviation, both under q, over all places of a step or of a `position` alone, where this is the gradient of
    `divergence.tvd` over the deviation.
    Paper: Goel et al. 2024, TVD++ (arXiv 2403.00858).
    Differs: "inspired by": no code is released, and that the statistics are a step's is our reading. Both models'
    heads are applied a second time: 1.7 times the cost of forward KL.
    """
    return TvdPp(statistics)


class TvdPp:
    """The objective; what it measures of a place is the mean of its reward."""

    def __init__(self, statistics: str) -> None:
        self.statistics = statistics

    def measure(self, view: View) -> torch.Tensor:
        """How much of the student's mass lies where the teacher has more."""
        log_p, log_q = distributions.outcomes(view)
        return (log_q.exp() * (log_p > log_q)).sum(1, keepdim=True)

    def settle(self, measured_NM: torch.Tensor, view: View) -> torch.Tensor:
        """The mean and the deviation of the reward, at every place."""
        mean_N = measured_NM[:, 0]
        if self.statistics == "batch" and len(mean_N):
            mean_N = mean_N.mean().expand(len(mean_N))
        return torch.stack([mean_N, (mean_N * (1 - mean_N)).clamp_min(0).sqrt()], 1)

    def __call__(self, view: View) -> Loss:
        log_p, log_q = distributions.outcomes(view)
        mean_N1, deviation_N1 = view.settled_NS.split(1, 1)
        with torch.no_grad():
            advantage = torch.where(log_p > log_q, 1 - mean_N1, -mean_N1).div_(deviation_N1 + 1e-6)
            push = log_q.exp().mul_(advantage)
        return Loss(-torch.linalg.vecdot(push, log_q), view.weight_N)


@objective(reads=READS, item="place", teacher="any", divergence=True)
def alpha(*, alpha: Share = 0.5, temperature: PositiveFloat = 1.0, times_tau_squared: bool = False) -> Objective:
    """The alpha divergence, (1 - sum p^alpha q^(1 - alpha)) / (alpha (1 - alpha)): between the two KL.

    Near 1 it is forward KL and near 0 reverse KL; at 0.5 four times the squared Hellinger distance.
    Paper: Amari 1985; in distillation Wang et al. 2021, AlphaNet (arXiv 2102.07954).
    Differs: alpha lies between 0 and 1, where the value is bounded and needs no clipping; AlphaNet takes the larger of
    two outside of that.
    """

    def between(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
        # Each outcome's part is above 0, so that nothing is lost where the two are near.
        joint = (alpha * log_p + (1 - alpha) * log_q).exp()
        return (alpha * log_p.exp() + (1 - alpha) * log_q.exp() - joint).sum(1) / (alpha * (1 - alpha))

    return _compare(between, temperature, times_tau_squared)


@objective(reads=READS, item="place", teacher="all", divergence=True, surrogate=True)
def adaptive(*, head: Share = 0.5) -> Objective:
    """Forward and reverse KL, each by the share of |p - q| that lies where it looks: the teacher's head and its tail.

    The head are the teacher's likeliest outcomes up to the mass `head`, at least one. No gradient goes through the
    shares.
    Paper: Wu et al. 2024, AKL (arXiv 2404.02657).
    Differs: 0 where the student is the teacher, where the released code divides 0 by 0. A head of more than 64 outcomes
    takes a longer sort: on a flat teacher of 32k outcomes that is 1.9 times the cost of forward KL.
    """

    def loss(view: View) -> Loss:
        log_p, log_q = distributions.outcomes(view)
        with torch.no_grad():
            p, gap = log_p.exp(), (log_p.exp() - log_q.exp()).abs()
            in_head_N = _gap_of_head(p, gap, head)
            share_N = in_head_N / gap.sum(1).clamp_min(distributions.SMALLEST)
        value_N = share_N * distributions.kl(log_p, log_q) + (1 - share_N) * distributions.kl(log_q, log_p)
        return Loss(value_N, view.weight_N)

    return loss


def _gap_of_head(p: torch.Tensor, gap: torch.Tensor, head: float, most: int = 64) -> torch.Tensor:
    """The sum [C] of the gap over the likeliest outcomes; where these are more than `most`, 64 times as many are
    sorted."""
    top = p.topk(min(most, p.shape[1]), 1)
    inside = top.values.cumsum(1) <= head
    inside[:, 0] = True
    found_C = (gap.gather(1, top.indices) * inside).sum(1)
    longer = inside[:, -1].nonzero()[:, 0]
    if len(longer) and p.shape[1] > most:
        found_C[longer] = _gap_of_head(p[longer], gap[longer], head, most * 64)
    return found_C


@objective(reads=READS, item="place", teacher="all", divergence=True)
def balanced(*, high: PositiveFloat = 2.0, low: PositiveFloat = 1.0) -> Objective:
    """Forward and reverse KL, `high` times that which the student lacks at a place, `low` times the other.

    A student less sure than its teacher is to be sharper, by reverse KL; one that is surer is to spread, by forward KL.
    Paper: Amara et al. 2022, BD-KD (arXiv 2212.12965).
    Differs: "inspired by": the paper was not readable; the teacher is fixed here, and the two weights are ours.
    """

    def loss(view: View) -> Loss:
        log_p, log_q = distributions.outcomes(view)
        with torch.no_grad():
            unsure_N = distributions.entropy(log_q) > distributions.entropy(log_p)
        forward_N, reverse_N = distributions.kl(log_p, log_q), distributions.kl(log_q, log_p)
        value_N = torch.where(unsure_N, low * forward_N + high * reverse_N, high * forward_N + low * reverse_N)
        return Loss(value_N, view.weight_N)

    return loss


@objective(
    reads=("student_NV", "teacher", "example_N", "length_B", "set_B", "reward_B", "weight_N"),
    item="place",
    per="set",
    teacher="any",
    divergence=False,
    surrogate=lambda given: given["variant"] == "code",
)
def pair(
    *, alpha: Share = 0.1, beta: Annotated[float, Field(ge=0, le=2)] = 1.0, variant: Literal["paper", "code"] = "paper"
) -> Objective:
    """Skew KL on the teacher's answer to a prompt and skew reverse KL on the student's, (2 - beta) and beta times.

    Of a prompt's answers the best rewarded are the teacher's side and all others the student's; an answer's value is
    the mean over its places, a side's the mean over its answers. A prompt whose rewards are all the same has none.
    Paper: Ko et al. 2025, DistiLLM-2 (arXiv 2503.07067), with its curriculum's beta.
    Differs: alpha is fixed; the released code moves it by a switch that is off. `variant: code` stops the gradient of q
    inside the mixture of the reverse one.
    """

    def loss(view: View) -> Loss:
        log_p, log_q = distributions.outcomes(view)
        return Loss(of_pair(view, log_p, log_q, alpha, beta, variant), view.weight_N)

    return loss


def of_pair(
    view: View,
    log_p: torch.Tensor,
    log_q: torch.Tensor,
    alpha: float | torch.Tensor,
    beta: float,
    variant: str = "paper",
) -> torch.Tensor:
    """What `pair` says of places, [N], with an alpha for all or for each, [N, 1]."""
    better_B, worse_B = sides(view.set_B, view.reward_B)
    share_B = (2 - beta) * _share(better_B, view.set_B) + beta * _share(worse_B, view.set_B)
    better_N1 = better_B[view.example_N][:, None]
    # The skew reverse KL is the skew KL of the two in each other's roles.
    one, other = (torch.where(better_N1, a, b) for a, b in ((log_p, log_q), (log_q, log_p)))
    inner = torch.where(better_N1, one, one.detach()) if variant == "code" else one
    value_N = distributions.kl(one, distributions.mixture(inner, other, alpha))
    return value_N * (share_B.to(value_N) / view.length_B.clamp_min(1))[view.example_N]


def sides(set_B: torch.Tensor, reward_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which examples have the highest reward of their set, and which have another; none of a set without both."""
    sets = int(set_B.max()) + 1 if len(set_B) else 0
    known_B = ~reward_B.isnan()
    reward_B = reward_B.nan_to_num(-torch.inf)
    best_S = reward_B.new_full((sets,), -torch.inf).scatter_reduce(0, set_B, reward_B, "amax")
    better_B, worse_B = known_B & (reward_B == best_S[set_B]), known_B & (reward_B < best_S[set_B])
    both_S = _number(better_B, set_B).gt(0) & _number(worse_B, set_B).gt(0)
    return better_B & both_S[set_B], worse_B & both_S[set_B]


def _number(chosen_B: torch.Tensor, set_B: torch.Tensor) -> torch.Tensor:
    sets = int(set_B.max()) + 1 if len(set_B) else 0
    return torch.zeros(sets, device=set_B.device).index_add(0, set_B, chosen_B.float())


def _share(chosen_B: torch.Tensor, set_B: torch.Tensor) -> torch.Tensor:
    """1 over how many of a set are chosen, at each that is."""
    return chosen_B / _number(chosen_B, set_B).clamp_min(1)[set_B]


@objective(reads=("student_NV", "target_N", "teacher", "weight_N"), item="place", teacher="any", divergence=False)
def nkd(*, gamma: Annotated[float, Field(ge=0)] = 1.5, temperature: PositiveFloat = 1.0) -> Objective:
    """-p_y log q_y for the target y, and gamma T^2 times the cross-entropy of the other outcomes among themselves.

    The others are a distribution of their own, without the target, at the temperature T. Add
    `supervised.cross_entropy`.
    Paper: Yang et al. 2023, NKD (arXiv 2303.13005).
    Differs: of a stored teacher, the others are its K and the rest together.
    """

    def loss(view: View) -> Loss:
        two_p, two_q = distributions.target_apart(view)
        soft_N = distributions.cross(*distributions.others_apart(view, temperature))
        return Loss(gamma * temperature**2 * soft_N - two_p[:, 0].exp() * two_q[:, 0], view.weight_N)

    return loss


@objective(reads=("student_NV", "target_N", "teacher", "weight_N"), item="place", teacher="any", divergence=True)
def decoupled(*, alpha: PositiveFloat = 1.0, beta: PositiveFloat = 8.0, temperature: PositiveFloat = 4.0) -> Objective:
    """KL of target against all others, and KL of the others among themselves, alpha and beta times, all times T^2.

    Forward KL weighs the second by the mass that the teacher leaves to the others; here it does not hang on that.
    Paper: Zhao et al. 2022, DKD (arXiv 2203.08679).
    Differs: of a stored teacher, the others are its K and the rest together. The released training adds cross-entropy
    and a warm-up of the weight.
    """

    def loss(view: View) -> Loss:
        target_N = distributions.kl(*distributions.target_apart(view, temperature))
        others_N = distributions.kl(*distributions.others_apart(view, temperature))
        return Loss((alpha * target_N + beta * others_N) * temperature**2, view.weight_N)

    return loss


@objective(reads=READS, item="place", teacher="all", divergence=True)
def standardised() -> Objective:
    """KL(p || q) of logits over their own standard deviation, which takes the place of a temperature.

    Paper: Choi et al. 2023 (Understanding the Role of Mixup in Knowledge Distillation, arXiv 2211.03946).
    Differs: outcomes of -inf are left out of the deviation, and a row of one number is the even distribution. The
    deviations are further looks at all outcomes: 1.6 times the cost of forward KL.
    """

    def loss(view: View) -> Loss:
        log_p, log_q = (distributions.log_probs(_over_deviation(z)) for z in (teacher_logits(view), view.student_NV))
        return Loss(distributions.kl(log_p, log_q), view.weight_N)

    return loss


def _over_deviation(logits_CV: torch.Tensor) -> torch.Tensor:
    if len(logits_CV) and not logits_CV.is_cuda and logits_CV.isfinite().all():
        return logits_CV * logits_CV.var(1, keepdim=True).clamp_min(1e-12).rsqrt()
    possible = logits_CV.isfinite()
    number_C1 = possible.sum(1, keepdim=True)
    known = logits_CV.masked_fill(~possible, 0)
    apart = (known - known.sum(1, keepdim=True) / number_C1).masked_fill(~possible, 0)
    variance_C1 = apart.square().sum(1, keepdim=True) / (number_C1 - 1).clamp_min(1)
    return (apart / variance_C1.clamp_min(1e-12).sqrt()).masked_fill(~possible, -torch.inf)


@objective(reads=READS, item="place", teacher="any", divergence=False)
def trusted(
    *,
    k: PositiveInt = 5,
    c: PositiveFloat = 0.3,
    student_c: PositiveFloat | None = None,
    normalise: Literal["softmax", "linear"] = "softmax",
) -> Objective:
    """KL between teacher and student on the teacher's k likeliest outcomes, each made a distribution of its own.

    `softmax` is exp(P / c) of the probabilities P, divided by its sum: c is sought so that the teacher's sureness fits
    how often it is right. `linear` divides the probabilities by their sum. `student_c` is c unless said otherwise.
    Paper: Shum et al. 2024, FIRST (arXiv 2408.12168).
    Differs: the mean over places, where the released code sums a sequence's; its broken option of an outcome for the
    rest is left out. At c = 1 the k are nearly even and teach little.
    """

    def loss(view: View) -> Loss:
        ids_NK, log_p = distributions.likeliest(view, k)
        log_q = distributions.apart(view.student_NV, ids_NK).clamp_min(distributions.LOWEST).log_softmax(1)[:, :-1]
        pairs = ((log_p, c), (log_q, c if student_c is None else student_c))
        if normalise == "linear":
            mine = [(log.exp() + 1e-6).log() for log, _ in pairs]
        else:
            mine = [log.exp() / each for log, each in pairs]
        return Loss(distributions.kl(mine[0].log_softmax(1), mine[1].log_softmax(1)), view.weight_N)

    return loss


def teacher_logits(view: View) -> torch.Tensor:
    """The logits of a live teacher, in the student's type."""
    if view.teacher is None:
        raise Refused(distributions.NO_TEACHER)
    return view.teacher.logits_NV.detach().to(view.student_NV.dtype)  # type: ignore[union-attr]


def _between(variant: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The divergence, or the cross-entropy that has its gradient."""
    # Looked up when it is called: naming a method must not load torch.
    return lambda log_p, log_q: (distributions.kl if variant == "paper" else distributions.cross)(log_p, log_q)


def _compare(
    between: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], temperature: float, times_tau_squared: bool
) -> Objective:
    scale = temperature**2 if times_tau_squared else 1.0

    def loss(view: View) -> Loss:
        return Loss(between(*distributions.outcomes(view, temperature)) * scale, view.weight_N)

    return loss
