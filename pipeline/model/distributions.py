"""Distributions over outcomes: what objectives are made of, each with its derivative in closed form, for fewer passes
over [N, V] and fewer copies of it.

Every function is the formula of its first line, to float32 rounding. First derivatives only. C places, V outcomes, K
stored ones.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.errors import Refused
from pipeline.kinds.objective import DenseTeacher, TopKTeacher, View

# Log-probability of what cannot happen: a column of -inf. It is finite because 0 * log 0 is not a number, and far
# below what logits of 1e4 give.
IMPOSSIBLE = -1e6
# A logit that adds nothing to any sum, and a mass that adds nothing and still has a logarithm, both in float32.
LOWEST = -1e38
SMALLEST = 1e-37
NO_TEACHER = (
    "the objective compares the student with a teacher's distribution, and these examples have none. Train on signals "
    "(add a `probe` of the examples), or use `supervised.cross_entropy`."
)


def outcomes(view: View, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Teacher's and student's log-probabilities of the same outcomes at a temperature: [N, V], or [N, K + 1].

    A dense teacher gives the V tokens. A stored one gives its K tokens and, last, all others together, for both: two
    whole distributions, so that a divergence between them is a true one and never above the dense one. The student's
    mass on the others is summed, not taken as 1 minus the K, which in float32 is noise when they are nearly all.
    At a temperature that was not stored the mass of the others is unknown (it depends on how it was spread), so that
    is refused. No gradient flows to the teacher.
    """
    match view.teacher:
        case DenseTeacher(logits_NV):
            logits_NV = logits_NV.detach().to(view.student_NV.dtype)
            return log_probs(logits_NV, temperature), log_probs(view.student_NV, temperature)
        case TopKTeacher():
            stored = _stored(view.teacher, temperature)
            ids_NK, logprobs_NK, tail_N = stored.ids_NK.long(), stored.logprobs_NK, stored.tail_N
            # A tail that the float could not hold is small, not impossible.
            log_tail = tail_N.detach().clamp_min(SMALLEST).log()
            log_p = torch.cat([logprobs_NK.detach(), log_tail[:, None]], 1).to(view.student_NV.dtype).log_softmax(1)
            student_NV = view.student_NV if temperature == 1 else view.student_NV / temperature
            log_q = apart(student_NV, ids_NK).clamp_min(LOWEST).log_softmax(1)
        case None:
            raise Refused(NO_TEACHER)
    return log_p.clamp_min(IMPOSSIBLE), log_q.clamp_min(IMPOSSIBLE)


def likeliest(view: View, k: int, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The teacher's k likeliest outcomes and their log-probabilities at a temperature, best first; each [N, k].

    A stored teacher gives as many as it has.
    """
    match view.teacher:
        case DenseTeacher(logits_NV):
            log_p = log_probs(logits_NV.detach().to(view.student_NV.dtype), temperature)
            top = log_p.topk(min(k, log_p.shape[1]), 1)
            return top.indices, top.values
        case TopKTeacher():
            stored = _stored(view.teacher, temperature)
            known = stored.logprobs_NK[:, :k].detach().to(view.student_NV.dtype)
            return stored.ids_NK[:, :k].long(), known.clamp_min(IMPOSSIBLE)
    raise Refused(NO_TEACHER)


def target_apart(view: View, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Teacher's and student's log-probabilities of the target and of all others together, [N, 2] each."""
    teacher, target_N1 = view.teacher, view.target_N[:, None]
    match teacher:
        case DenseTeacher(logits_NV):
            logits_NV = logits_NV.detach().to(view.student_NV.dtype)
            two_p = apart(logits_NV if temperature == 1 else logits_NV / temperature, target_N1)
        case TopKTeacher():
            stored = _stored(teacher, temperature)
            two_p = torch.stack([stored.target_N, _stored_others(stored, view.target_N).logsumexp(1)], 1)
        case None:
            raise Refused(NO_TEACHER)
    two_q = apart(view.student_NV if temperature == 1 else view.student_NV / temperature, target_N1)
    two_p = two_p.detach().to(view.student_NV.dtype)
    log_p, log_q = (two.clamp_min(LOWEST).log_softmax(1).clamp_min(IMPOSSIBLE) for two in (two_p, two_q))
    return log_p, log_q


def others_apart(view: View, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """As `outcomes`, without the target: distributions over all others, which of a stored teacher are its K, less the
    target if it is one, and the rest together."""
    others_NV = view.student_NV.scatter(1, view.target_N[:, None], -torch.inf)
    match view.teacher:
        case DenseTeacher(logits_NV):
            logits_NV = logits_NV.detach().to(others_NV.dtype).scatter(1, view.target_N[:, None], -torch.inf)
            return log_probs(logits_NV, temperature), log_probs(others_NV, temperature)
        case TopKTeacher():
            stored = _stored(view.teacher, temperature)
            log_p = _stored_others(stored, view.target_N).detach().to(others_NV.dtype).log_softmax(1)
            others_NV = others_NV if temperature == 1 else others_NV / temperature
            log_q = apart(others_NV, stored.ids_NK.long()).clamp_min(LOWEST).log_softmax(1)
            return log_p.clamp_min(IMPOSSIBLE), log_q.clamp_min(IMPOSSIBLE)
    raise Refused(NO_TEACHER)


def _stored_others(stored: TopKTeacher, target_N: Tensor) -> Tensor:
    """Logarithms of the masses of the K outcomes, LOWEST for the target, and of the rest without it, [N, K + 1]."""
    itself_NK = stored.ids_NK == target_N[:, None]
    outside_N = stored.target_N.exp().masked_fill(itself_NK.any(1), 0)
    rest_N = (stored.tail_N - outside_N).clamp_min(SMALLEST).log()
    return torch.cat([stored.logprobs_NK.masked_fill(itself_NK, LOWEST), rest_N[:, None].to(stored.logprobs_NK)], 1)


def _stored(teacher: TopKTeacher, temperature: float) -> TopKTeacher:
    """A stored distribution at a temperature; refuses one at which the mass of the others is not known."""
    found = teacher.at_temperature(temperature)
    if found is None:
        raise Refused(
            f"the stored signals were taken at temperature {teacher.temperature:g} and the objective asks for "
            f"{temperature:g}: the mass of the tokens that were not stored is unknown there. "
            f"Write `temperature: {teacher.temperature:g}` for the objective, or let the probe say "
            f"`temperatures: [{teacher.temperature:g}, {temperature:g}]`."
        )
    return found


def log_probs(logits_CV: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature), [C, V], not below IMPOSSIBLE."""
    return _LogProbs.apply(logits_CV, temperature)


def log_prob_of(logits_CV: Tensor, target_C: Tensor) -> Tensor:
    """log softmax(logits) at one outcome of each row, [C]."""
    return _LogProbOf.apply(logits_CV, target_C)


def apart(logits_CV: Tensor, ids_CK: Tensor) -> Tensor:
    """The logits of K outcomes and, last, that of all others together (log sum exp), [C, K + 1]."""
    return _Apart.apply(logits_CV, ids_CK)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """sum p (log p - log q) of each row, [C]."""
    return _Kl.apply(log_p, log_q)


def cross(log_p: Tensor, log_q: Tensor) -> Tensor:
    """-sum p log q of each row, [C]."""
    return _Cross.apply(log_p, log_q)


def entropy(log_q: Tensor) -> Tensor:
    """-sum q log q of each row, [C]."""
    return _Cross.apply(log_q, log_q)


def variation(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Half of sum |p - q| of each row, [C]; p is given, so it gets no gradient."""
    return _Variation.apply(log_p, log_q)


def jsd(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """beta sum p (log p - log m) + (1 - beta) sum q (log q - log m) of each row, [C], m = beta p + (1 - beta) q; p is
    given, so it gets no gradient."""
    return _Jsd.apply(log_p, log_q, beta)


def mixture(log_p: Tensor, log_q: Tensor, share: float | Tensor) -> Tensor:
    """log(share p + (1 - share) q), elementwise; the share is given, for all places or for each, [C, 1]."""
    return _Mixture.apply(log_p, log_q, share)


def correlation(p: Tensor, q: Tensor, dim: int) -> Tensor:
    """Pearson's correlation along a dimension, 0 where either has no spread; p is given, so it gets no gradient."""
    return _Correlation.apply(p, q, dim)


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_CV: Tensor, temperature: float) -> Tensor:
        scaled = logits_CV if temperature == 1 else logits_CV / temperature
        log_q = scaled.log_softmax(1)
        # A look costs less than the clamp and its mask; on a GPU the look would wait for what was asked before.
        ctx.low = log_q.is_cuda or bool(log_q.numel() and log_q.min() < IMPOSSIBLE)
        if ctx.low:
            log_q.clamp_min_(IMPOSSIBLE)
        ctx.save_for_backward(log_q)
        ctx.temperature = temperature
        return log_q

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        (log_q,) = ctx.saved_tensors
        if ctx.low:
            d = d.masked_fill(log_q <= IMPOSSIBLE, 0)
        d = torch._log_softmax_backward_data(d, log_q, 1, log_q.dtype)
        return d if ctx.temperature == 1 else d.div_(ctx.temperature), None


class _LogProbOf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_CV: Tensor, target_C: Tensor) -> Tensor:
        q = logits_CV.softmax(1)
        ctx.save_for_backward(q, target_C)
        return logits_CV.gather(1, target_C[:, None])[:, 0] - _logsumexp(logits_CV, q)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_C: Tensor) -> tuple[Tensor | None, ...]:
        q, target_C = ctx.saved_tensors
        return (q * -d_C[:, None]).scatter_add_(1, target_C[:, None], d_C[:, None]), None


class _Apart(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_CV: Tensor, ids_CK: Tensor) -> Tensor:
        others = logits_CV.scatter(1, ids_CK, LOWEST)
        share = others.softmax(1)
        ctx.save_for_backward(share, ids_CK)
        return torch.cat([logits_CV.gather(1, ids_CK), _logsumexp(others, share)[:, None]], 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        share, ids_CK = ctx.saved_tensors
        return (share * d[:, -1:]).scatter_(1, ids_CK, d[:, :-1]), None


class _Kl(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_p: Tensor, log_q: Tensor) -> Tensor:
        p, ratio = log_p.exp(), log_p - log_q
        value = _dot(p, ratio)
        ctx.save_for_backward(p, ratio.add_(1) if ctx.needs_input_grad[0] else None)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_C: Tensor) -> tuple[Tensor | None, ...]:
        p, ratio = ctx.saved_tensors
        d_p = d_q = None
        if ctx.needs_input_grad[1]:
            d_q = p * -d_C[:, None]
        if ctx.needs_input_grad[0]:
            d_p = (ratio * p).mul_(d_C[:, None])
        return d_p, d_q


class _Cross(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_p: Tensor, log_q: Tensor) -> Tensor:
        p = log_p.exp()
        ctx.save_for_backward(p, log_q if ctx.needs_input_grad[0] else None)
        return _dot(p, log_q).neg_()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_C: Tensor) -> tuple[Tensor | None, ...]:
        p, log_q = ctx.saved_tensors
        d_q = p * -d_C[:, None]
        return d_q * log_q if ctx.needs_input_grad[0] else None, d_q if ctx.needs_input_grad[1] else None


class _Variation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_p: Tensor, log_q: Tensor) -> Tensor:
        q = log_q.exp()
        apart = q - log_p.exp()
        # Rounding has no side.
        apart.masked_fill_(apart.abs() <= 32 * torch.finfo(q.dtype).eps * q, 0)
        ctx.save_for_backward(apart.sign().mul_(q))
        return apart.abs_().sum(1).mul_(0.5)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_C: Tensor) -> tuple[Tensor | None, ...]:
        (signed,) = ctx.saved_tensors
        return None, signed * (0.5 * d_C[:, None])


class _Jsd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
        p, q = log_p.exp(), log_q.exp()
        log_m = torch.lerp(q, p, beta).clamp_min_(SMALLEST).log_()
        over_q = log_q - log_m
        value = _dot(p, torch.sub(log_p, log_m, out=log_m)).mul_(beta).add_(_dot(q, over_q), alpha=1 - beta)
        # The mixture's own part of the derivative is 0.
        ctx.save_for_backward(q.mul_(over_q).mul_(1 - beta))
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_C: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return None, slope * d_C[:, None], None


class _Correlation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, q: Tensor, dim: int) -> Tensor:
        p, q = (each - each.mean(dim, keepdim=True) for each in (p, q))
        of_p, of_q = (torch.linalg.vector_norm(each, dim=dim).clamp_min_(1e-12) for each in (p, q))
        r = _dot(p, q, dim=dim).div_(of_p).div_(of_q)
        ctx.save_for_backward(p, q, of_p, of_q, r)
        ctx.dim = dim
        return r

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        p, q, of_p, of_q, r = ctx.saved_tensors
        along_p, along_q = ((d * each / of_q).unsqueeze(ctx.dim) for each in (1 / of_p, r / of_q))
        return None, (p * along_p).addcmul_(q, along_q, value=-1), None


class _Mixture(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_p: Tensor, log_q: Tensor, share: float | Tensor) -> Tensor:
        of_p, of_q = (x.log() if isinstance(x, Tensor) else math.log(x) for x in (share, 1 - share))
        mixed = torch.logaddexp(log_p + of_p, log_q + of_q)
        ctx.save_for_backward(log_p, log_q, mixed)
        ctx.share = share
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        log_p, log_q, mixed = ctx.saved_tensors
        d_p = d_q = None
        if ctx.needs_input_grad[0]:
            d_p = (log_p - mixed).exp_().mul_(ctx.share).mul_(d)
        if ctx.needs_input_grad[1]:
            d_q = (log_q - mixed).exp_().mul_(1 - ctx.share).mul_(d)
        return d_p, d_q, None


def _logsumexp(logits_CV: Tensor, softmax_CV: Tensor) -> Tensor:
    """log sum exp of each row, from a softmax that is there: its largest entry is above 1 / V, so its log is exact."""
    return logits_CV.amax(1) - softmax_CV.amax(1).log()


_dot = torch.linalg.vecdot
