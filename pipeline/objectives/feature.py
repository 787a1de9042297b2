"""Objectives over what student and teacher compute on the way: states, compared through a trained projection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from pipeline.core.methods import lazy
from pipeline.kinds.objective import Loss, Objective, Tap, TeacherTap, View, objective

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@objective(
    reads=("features", "teacher_features", "own", "weight_N"), item="place", teacher="features", divergence=False
)
def hidden(
    *, tap: Tap = "last", teacher_tap: TeacherTap = "last", distance: Literal["mse", "cosine"] = "mse"
) -> Objective:
    """The distance between the teacher's state and a linear projection of the student's, which is trained with it.

    `mse` is the mean over the teacher's width of the squared difference; `cosine` is 1 less their cosine.
    Paper: Romero et al. 2015, FitNets (arXiv 1412.6550), eq. 3, with a linear regressor.
    Differs: the regressor is trained with the student and not before it, as most later code does.
    """
    return Hidden(tap, teacher_tap, distance)


class Hidden:
    """The objective; `modules` makes its projection."""

    def __init__(self, tap: str, teacher_tap: str, distance: str) -> None:
        self.taps, self.teacher_taps, self.distance = (tap,), (teacher_tap,), distance

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """The projection from the student's width to the teacher's."""
        return torch.nn.Linear(widths[self.taps[0]], teacher_widths[self.teacher_taps[0]])

    def __call__(self, view: View) -> Loss:
        mine_ND = view.own(view.features[self.taps[0]])
        teachers_ND = view.teacher_features[self.teacher_taps[0]].detach().to(mine_ND.dtype)
        if self.distance == "mse":
            return Loss((mine_ND - teachers_ND).square().mean(1), view.weight_N)
        return Loss(1 - torch.nn.functional.cosine_similarity(mine_ND, teachers_ND, dim=1), view.weight_N)


@objective(
    reads=("features", "teacher_features", "own", "weight_N"), item="place", teacher="features", divergence=False
)
def smooth(*, tap: Tap = "last", teacher_tap: TeacherTap = "last", beta: PositiveFloat = 2.0) -> Objective:
    """The smooth L1 distance between the teacher's state and a linear projection of the student's, which is trained
    with it: the mean over the teacher's width of d^2 / (2 beta) up to a difference d of `beta`, and d - beta / 2 above.

    Paper: Ma et al. 2022 (DMJD, arXiv 2301.00230), what the patches that are seen learn of the same target.
    Differs: nothing.
    """
    return Smooth(tap, teacher_tap, beta)


class Smooth:
    """See `smooth`; `modules` makes its projection."""

    def __init__(self, tap: str, teacher_tap: str, beta: float) -> None:
        self.taps, self.teacher_taps, self.beta = (tap,), (teacher_tap,), beta

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """The projection from the student's width to the teacher's."""
        return torch.nn.Linear(widths[self.taps[0]], teacher_widths[self.teacher_taps[0]])

    def __call__(self, view: View) -> Loss:
        mine_ND = view.own(view.features[self.taps[0]])
        theirs_ND = view.teacher_features[self.teacher_taps[0]].detach().to(mine_ND.dtype)
        apart_ND = torch.nn.functional.smooth_l1_loss(mine_ND, theirs_ND, reduction="none", beta=self.beta)
        return Loss(apart_ND.mean(1), view.weight_N)


@objective(
    reads=("features", "teacher_features", "own", "weight_N"), item="place", teacher="features", divergence=False
)
def nd(*, tap: Tap = "last", teacher_tap: TeacherTap = "last", mean_tap: TeacherTap = "class_mean") -> Objective:
    """Norm and direction: 1 - <s, e> / max(|s|, |t|), where e is the unit vector of the teacher's mean of the class
    (`classes.mean`), t the teacher's state and s a projection of the student's, which is trained with it.

    A state shorter than the teacher's grows, and every state turns to its class.
    Paper: Wang et al. 2023 (ND loss, arXiv 2305.17007), equation 9, with the maximum of the released code.
    Differs: a linear projection, also where the widths agree.
    """
    return NormDirection(tap, teacher_tap, mean_tap)


class NormDirection:
    """See `nd`; `modules` makes its projection."""

    def __init__(self, tap: str, teacher_tap: str, mean_tap: str) -> None:
        self.taps, self.teacher_taps = (tap,), (teacher_tap, mean_tap)

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """The projection from the student's width to the teacher's."""
        return torch.nn.Linear(widths[self.taps[0]], teacher_widths[self.teacher_taps[0]])

    def __call__(self, view: View) -> Loss:
        mine_ND = view.own(view.features[self.taps[0]])
        theirs_ND, means_ND = (view.teacher_features[t].detach().to(mine_ND.dtype) for t in self.teacher_taps)
        along_N = (mine_ND * torch.nn.functional.normalize(means_ND, dim=1)).sum(1)
        longest_N = torch.maximum(mine_ND.norm(dim=1), theirs_ND.norm(dim=1)).clamp_min(1e-12)
        return Loss(1 - along_N / longest_N, view.weight_N)


@objective(
    reads=("features", "teacher_features", "own", "example_N", "weight_N"),
    item="place",
    teacher="features",
    divergence=False,
    alone=False,
)
def trg(
    *,
    tap: Tap = "last",
    teacher_tap: TeacherTap = "last",
    inner: NonNegativeFloat = 1.0,
    local: NonNegativeFloat = 1.0,
    both: NonNegativeFloat = 1.0,
    neighbours: PositiveInt = 8,
    temperature: PositiveFloat = 0.1,
    places: PositiveInt = 256,
) -> Objective:
    """Token relation graph: how places lie to each other inside an example, to their neighbours in the step, and to
    themselves in the other model. `places` of a step take part, evenly spaced; the others are worth 0.

    `inner`: the squared distance of softmax(F F' / sqrt(D)) over the places of an example. `local`: KL(teacher |
    student) of a place's distribution over the teacher's nearest `neighbours`, by exp(-d^2 / 2 s), s the mean squared
    distance. `both`: InfoNCE of a trained projection, in which the same place of the teacher's is the one to find.
    Paper: inspired by Zhang et al. 2023 (Knowledge distillation via token-level relationship graph, arXiv 2306.12442).
    Differs: a summary of it was read, and no code: the direction of the KL is ours, s is the scale of each model's own
    states, and the temperature is constant where theirs is annealed.
    """
    return Graph(tap, teacher_tap, (inner, local, both), neighbours, temperature, places)


class Graph:
    """See `trg`; `modules` makes its projection."""

    def __init__(
        self,
        tap: str,
        teacher_tap: str,
        weights: tuple[float, float, float],
        neighbours: int,
        temperature: float,
        places: int,
    ) -> None:
        self.taps, self.teacher_taps, self.weights = (tap,), (teacher_tap,), weights
        self.neighbours, self.temperature, self.places = neighbours, temperature, places

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """The projection from the student's width to the teacher's."""
        return torch.nn.Linear(widths[self.taps[0]], teacher_widths[self.teacher_taps[0]])

    def __call__(self, view: View) -> Loss:
        of_all = view.features[self.taps[0]]
        count = len(of_all)
        chosen = min(count, self.places)
        at_M = torch.arange(chosen, device=of_all.device) * count // max(chosen, 1)
        states_MD = of_all[at_M]
        teachers_ME = view.teacher_features[self.teacher_taps[0]][at_M].detach().to(states_MD.dtype)
        same_MM = view.example_N[at_M][:, None] == view.example_N[at_M]
        inner, local, both = self.weights
        value_M = (
            inner * (_inside(states_MD, same_MM) - _inside(teachers_ME, same_MM)).square().sum(1)
            + local * self._local(states_MD, teachers_ME)
            + both * self._found(view.own(states_MD), teachers_ME)
        )
        # The mean over all places is that over those which take part.
        value_N = of_all.new_zeros(count).index_put((at_M,), value_M * (count / max(chosen, 1)))
        return Loss(value_N, view.weight_N)

    def _local(self, states_MD: torch.Tensor, teachers_ME: torch.Tensor) -> torch.Tensor:
        k = min(self.neighbours, len(states_MD) - 1)
        if k < 1:
            return states_MD.sum(1) * 0
        far_MM, theirs_MM = _apart(states_MD), _apart(teachers_ME)
        itself = torch.eye(len(states_MD), dtype=torch.bool, device=states_MD.device)
        near_MK = theirs_MM.masked_fill(itself, torch.inf).topk(k, largest=False).indices
        log_p, log_q = (
            (-d_MM.gather(1, near_MK) / (2 * d_MM.mean().clamp_min(1e-12))).log_softmax(1)
            for d_MM in (theirs_MM, far_MM)
        )
        return (log_p.exp() * (log_p - log_q)).sum(1)

    def _found(self, mine_ME: torch.Tensor, teachers_ME: torch.Tensor) -> torch.Tensor:
        one, other = (torch.nn.functional.normalize(x, dim=1) for x in (mine_ME, teachers_ME))
        return -(one @ other.T / self.temperature).log_softmax(1).diagonal()


def _inside(states_MD: torch.Tensor, same_MM: torch.Tensor) -> torch.Tensor:
    """A place's softmax over the places of its example."""
    return (states_MD @ states_MD.T / states_MD.shape[1] ** 0.5).masked_fill(~same_MM, -torch.inf).softmax(1)


def _apart(states_MD: torch.Tensor) -> torch.Tensor:
    """Squared distances."""
    lengths_M = states_MD.square().sum(1)
    return (lengths_M[:, None] + lengths_M - 2 * states_MD @ states_MD.T).clamp_min(0)


@objective(
    reads=("features", "teacher_features", "own", "weight_N"), item="place", teacher="features", divergence=False
)
def cosine(
    *,
    tap: Tap = "last",
    teacher_tap: TeacherTap = "last",
    text_tap: TeacherTap = "class_mean",
    share: Annotated[float, Field(ge=0, le=1)] = 0.5,
) -> Objective:
    """1 less the cosine of a linear projection of the student's state, which is trained with it, with what the teacher
    makes of the picture, of which `share`, and with what it makes of the words for it.

    Paper: Addepalli et al. 2024 (VL2V-ADiP, arXiv 2310.08255), the loss of both stages, up to the constant 1; their
    lambda is `share`.
    Differs: without a tower of words they are the teacher's mean of the class (`classes.mean`), which a tower that was
    aligned with the pictures is near to.
    """
    return Cosine(tap, (teacher_tap, text_tap), share)


class Cosine:
    """See `cosine`; `modules` makes its projection."""

    def __init__(self, tap: str, teacher_taps: tuple[str, str], share: float) -> None:
        self.taps, self.teacher_taps, self.share = (tap,), teacher_taps, share

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """The projection from the student's width to the teacher's."""
        return torch.nn.Linear(widths[self.taps[0]], teacher_widths[self.teacher_taps[0]])

    def __call__(self, view: View) -> Loss:
        mine_ND = view.own(view.features[self.taps[0]])
        image_N, text_N = (
            torch.nn.functional.cosine_similarity(mine_ND, view.teacher_features[t].detach().to(mine_ND.dtype), dim=1)
            for t in self.teacher_taps
        )
        return Loss(1 - self.share * image_N - (1 - self.share) * text_N, view.weight_N)


@objective(
    reads=("features", "teacher_features", "own", "weight_N"), item="place", teacher="features", divergence=False
)
def expert(
    *,
    tap: Tap = "last",
    teacher_tap: TeacherTap = "last",
    share: Annotated[float, Field(ge=0, le=1)] = 0.9,
) -> Objective:
    """Of a projection of the student's state to an expert's, which is trained with it: `share` of 1 less their cosine,
    and for the rest the mean of their smooth L1 distance. Several experts are several terms.

    Paper: Ma et al. 2024 (GPFM, arXiv 2407.18449), the loss of each expert's patches; that of its pictures has a
    `share` of 1.
    Differs: nothing.
    """
    return Expert(tap, teacher_tap, share)


class Expert:
    """See `expert`; `modules` makes its projection."""

    def __init__(self, tap: str, teacher_tap: str, share: float) -> None:
        self.taps, self.teacher_taps, self.share = (tap,), (teacher_tap,), share

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """The projection from the student's width to the teacher's."""
        return torch.nn.Linear(widths[self.taps[0]], teacher_widths[self.teacher_taps[0]])

    def __call__(self, view: View) -> Loss:
        mine_ND = view.own(view.features[self.taps[0]])
        theirs_ND = view.teacher_features[self.teacher_taps[0]].detach().to(mine_ND.dtype)
        turned_N = 1 - torch.nn.functional.cosine_similarity(mine_ND, theirs_ND, dim=1)
        apart_N = torch.nn.functional.smooth_l1_loss(mine_ND, theirs_ND, reduction="none").mean(1)
        return Loss(self.share * turned_N + (1 - self.share) * apart_N, view.weight_N)


@objective(
    reads=("student_NV", "features", "target_N", "weight_N"),
    item="place",
    teacher="none",
    alone=False,
    both=True,
    divergence=False,
)
def trajectory(*, tap: Tap = "last") -> Objective:
    """How differently two domains would train the head: of its gradient at a place, (q - y) h', the squared difference
    of the means over places of known and of unknown outcome, and that of the variances, each as a mean over the head.

    q are the student's probabilities, h the state that its head is given, y the outcome, which where it is unknown is
    the likeliest. Every place has the same value, and 0 where all outcomes are known or none is.

    Paper: Fan et al. 2023 (optimization trajectory distillation, arXiv 2307.14709), the statistics of the gradients.
    Differs: of the head alone, and by this formula, so there is no second backward pass; of the step and no average
    over steps; their projection of raw gradients on the directions of a bank is left out.
    """
    return Trajectory(tap)


class Trajectory:
    """See `trajectory`."""

    def __init__(self, tap: str) -> None:
        self.taps = (tap,)

    def __call__(self, view: View) -> Loss:
        q_NV, known_N = view.student_NV.softmax(1), view.target_N >= 0
        target_N = torch.where(known_N, view.target_N, view.student_NV.argmax(1))
        outcome_NV = torch.nn.functional.one_hot(target_N, q_NV.shape[1])
        gradient_NVD = (q_NV - outcome_NV)[:, :, None] * view.features[self.taps[0]][:, None]
        shares = [of.to(q_NV) / of.sum().clamp_min(1) for of in (known_N, ~known_N)]
        means = [torch.einsum("n,nvd->vd", share_N, gradient_NVD) for share_N in shares]
        spreads = [
            torch.einsum("n,nvd->vd", share_N, (gradient_NVD - mean_VD).square())
            for share_N, mean_VD in zip(shares, means, strict=True)
        ]
        apart = (means[0] - means[1]).square().mean() + (spreads[0] - spreads[1]).square().mean()
        two = float(known_N.any() and not known_N.all())
        return Loss(apart * two + q_NV.sum(1) * 0, view.weight_N)


# A mask has at least so much of everything, or none of its mean would be a number.
LEAST = 1e-6


@objective(
    reads=("features", "teacher_features", "own", "example_N", "weight_N"),
    item="place",
    teacher="features",
    divergence=False,
    alone=False,
)
def acam(
    *,
    tap: Tap = "last",
    teacher_tap: TeacherTap = "last",
    masks: PositiveInt = 6,
    diversity: NonNegativeFloat = 1.0,
) -> Objective:
    """The squared distance of the teacher's state and a projection of the student's, under masks that are trained.

    Attention within a picture, of which queries are the teacher's states and keys and values the student's, says what
    both see. Of its mean over the picture each of `masks` takes a share of the channels, and of itself at a pixel a
    share of that pixel: sigmoids of trained weights. A term is the mean of the distance under each mask, one over
    channels and one over pixels; `diversity` times their mean overlap in pairs (Dice) is added.

    Paper: Lan & Tian 2025 (ACAM-KD, arXiv 2503.06307).
    Differs: read in summaries, no code; a mask's distance is divided by the mask's own sum, without which an empty mask
    has no loss; distances are means over channels.
    """
    return Acam(tap, teacher_tap, masks, diversity)


class Acam:
    """See `acam`; `modules` makes its projections and masks."""

    def __init__(self, tap: str, teacher_tap: str, masks: int, diversity: float) -> None:
        self.taps, self.teacher_taps, self.masks, self.diversity = (tap,), (teacher_tap,), masks, diversity

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """Projections of both into what is compared, and a row of weights for each mask."""
        own, theirs = widths[self.taps[0]], teacher_widths[self.teacher_taps[0]]
        half, linear = max(1, theirs // 2), torch.nn.Linear
        return torch.nn.ModuleDict({
            "align": linear(own, theirs), "query": linear(theirs, half), "key": linear(own, half),
            "value": linear(own, theirs), "channels": linear(theirs, self.masks, bias=False),
            "pixels": linear(theirs, self.masks, bias=False),
        })  # fmt: skip

    def __call__(self, view: View) -> Loss:
        own: Mapping[str, torch.nn.Linear] = view.own  # type: ignore[assignment]
        mine_ND = view.features[self.taps[0]]
        theirs_NC = view.teacher_features[self.teacher_taps[0]].detach().to(mine_ND.dtype)
        at_BP, there_BP = _together(view.example_N)
        fused_BPC = _attended(own, mine_ND[at_BP], theirs_NC[at_BP], there_BP)
        far_BPC = (theirs_NC - own["align"](mine_ND)).square()[at_BP]
        there_BP1 = there_BP[:, :, None].to(mine_ND.dtype)
        pooled_BC = (fused_BPC * there_BP1).sum(1) / there_BP1.sum(1)
        channels_BMC = (own["channels"].weight * pooled_BC[:, None]).sigmoid()
        pixels_BMP = (own["pixels"](fused_BPC).sigmoid() * there_BP1).transpose(1, 2)
        share_BMC = channels_BMC / (channels_BMC.sum(2, keepdim=True) + LEAST)
        share_BMP = pixels_BMP / (pixels_BMP.sum(2, keepdim=True) + LEAST) * there_BP1.sum(1)[:, :, None]
        value_BP = (far_BPC @ share_BMC.mean(1)[:, :, None])[:, :, 0] + share_BMP.mean(1) * far_BPC.mean(2)
        alike_B = _alike(channels_BMC) + _alike(pixels_BMP)
        value_BP = value_BP + self.diversity * alike_B[:, None]
        value_N = mine_ND.new_zeros(len(mine_ND)).index_put((at_BP[there_BP],), value_BP[there_BP])
        return Loss(value_N, view.weight_N)


def _together(example_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The places [B, P] of every example that has some, and which of them are there; others are the first place."""
    order_N = example_N.argsort(stable=True)
    _, sizes_B = example_N.unique(return_counts=True)
    column_P = torch.arange(int(sizes_B.max()) if len(sizes_B) else 0, device=example_N.device)
    there_BP = column_P < sizes_B[:, None]
    at_BP = torch.zeros_like(there_BP, dtype=torch.long)
    at_BP[there_BP] = order_N
    return at_BP, there_BP


def _attended(
    own: Mapping[str, torch.nn.Linear], mine_BPD: torch.Tensor, theirs_BPC: torch.Tensor, there_BP: torch.Tensor
) -> torch.Tensor:
    """What the teacher's pixels look for among the student's."""
    query, key, value = own["query"](theirs_BPC), own["key"](mine_BPD), own["value"](mine_BPD)
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, there_BP[:, None])


def _alike(masks_BMX: torch.Tensor) -> torch.Tensor:
    """The mean Dice coefficient of a picture's masks in pairs, [B]; 0 for a mask alone."""
    count = masks_BMX.shape[1]
    shared_BMM = masks_BMX @ masks_BMX.transpose(1, 2)
    size_BM = shared_BMM.diagonal(dim1=1, dim2=2)
    dice_BMM = 2 * shared_BMM / (size_BM[:, :, None] + size_BM[:, None] + LEAST)
    return (dice_BMM.sum((1, 2)) - dice_BMM.diagonal(dim1=1, dim2=2).sum(1)) / max(1, count * (count - 1))
