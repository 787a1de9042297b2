"""Gradients: those of autograd, of each text alone; a projection keeps inner products, a step leaves no trace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from pipeline.backends import local
from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.kinds.backend import Descent, Tokens, Want
from pipeline.memo.memo import reading_key
from pipeline.model.folder import finish
from pipeline.model.gradients import Student

EMBEDDED = Path(__file__).parents[2] / "data" / "embedded" / "base"


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> local.LocalModel:
    folder = tmp_path_factory.mktemp("made") / "base"
    shutil.copytree(EMBEDDED, folder)
    (folder / "model.json").write_text(json.dumps(finish(folder, "float32")), "utf-8")
    with local.model(
        folder=folder, card={"dtype": "float32"}, how=How(RunSettings(device="cpu"), folder, "r")
    ) as opened:
        return opened


def texts(backend: local.LocalModel, count: int = 6) -> list[Tokens]:
    """Sums of several lengths, the first of them right."""
    asked = []
    for i in range(count):
        rendered = backend.chat.example([{"role": "user", "content": f"add {i}27 8{i}"}], f"7+2=9#{i}" * (1 + i % 3))
        asked.append(Tokens(str(i), rendered.token_ids, [t for a, b in rendered.spans for t in range(a, b)]))
    return asked


def plain(net: torch.nn.Module, tokens: Tokens) -> torch.Tensor:
    """The mean loss as `transformers` computes it."""
    labels = torch.full((1, len(tokens.token_ids)), -100)
    labels[0, list(tokens.positions)] = torch.tensor(tokens.token_ids)[list(tokens.positions)]
    return net(torch.tensor([tokens.token_ids]), labels=labels).loss


def student(backend: local.LocalModel) -> Student:
    return Student(backend)


def test_it_is_the_gradient_of_the_mean_loss(backend: local.LocalModel) -> None:
    for tokens in texts(backend, 3):
        backend.net.zero_grad()
        plain(backend.net, tokens).backward()
        expected = [weight.grad for weight in backend.net.parameters()]
        found = student(backend).gradient(tokens)
        assert len(found) == len(expected) == len({id(w) for w in backend.net.parameters()})
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)
    backend.net.zero_grad()


def test_a_gradient_does_not_depend_on_what_else_is_read(backend: local.LocalModel) -> None:
    asked, want = texts(backend), Want(top_k=2, gradient=64)
    together = {r.id: r for r in backend.read(asked, want)}
    plainly = {r.id: r for r in backend.read(asked, Want(top_k=2))}
    for tokens in asked:
        [alone] = backend.read([tokens], want)
        assert alone.gradient is not None and alone.gradient.dtype == np.float32
        np.testing.assert_array_equal(alone.gradient, together[tokens.id].gradient)
        np.testing.assert_array_equal(plainly[tokens.id].topk_logprobs, together[tokens.id].topk_logprobs)


def test_a_projection_keeps_inner_products(backend: local.LocalModel) -> None:
    """Of 6 gradients, all pairs: off by 5 standard errors at most, and by less in a wider one."""
    one = student(backend)
    gradients = [one.gradient(tokens) for tokens in texts(backend)]
    whole = np.stack([torch.cat([g.flatten() for g in some]).double().numpy() for some in gradients])
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    scale = [float(torch.cat([g.flatten() for g in some]).norm()) for some in gradients]
    off = {}
    for width in (256, 4096):
        one = student(backend)
        found = np.stack([one.projected(some, width) for some in gradients]) / np.array(scale)[:, None]
        off[width] = abs(found @ found.T - whole @ whole.T).max()
        assert off[width] < 5 / width**0.5
    assert off[4096] < off[256]


def test_a_projection_is_linear_and_the_same_for_every_model_of_a_shape(backend: local.LocalModel) -> None:
    first, second = (student(backend).gradient(tokens) for tokens in texts(backend, 2))
    both = [2 * a - b for a, b in zip(first, second, strict=True)]
    one, other = student(backend), student(backend)
    found = 2 * one.projected(first, 32) - one.projected(second, 32)
    np.testing.assert_allclose(other.projected(both, 32), found, atol=1e-4)


@pytest.mark.parametrize("rate", [1e-3, 1e-2])
def test_a_step_is_one_of_gradient_descent_and_leaves_the_weights_alone(backend: local.LocalModel, rate: float) -> None:
    first, *target = texts(backend, 40)
    before = {name: weight.clone() for name, weight in backend.net.state_dict().items()}
    [reading] = backend.read([first], Want(descent=Descent(rate, tuple(target))))
    assert all(torch.equal(weight, before[name]) for name, weight in backend.net.state_dict().items())

    net = transformers.AutoModelForCausalLM.from_config(backend.net.config).eval()
    net.load_state_dict(before)

    def mean() -> float:
        with torch.no_grad():
            return float(torch.stack([plain(net, tokens) for tokens in target]).mean())

    expected = [mean()]
    plain(net, first).backward()
    torch.optim.SGD(net.parameters(), lr=rate).step()
    np.testing.assert_allclose(reading.descent, [*expected, mean()], atol=1e-4)


def test_weights_are_put_back_where_the_target_cannot_be_read(backend: local.LocalModel) -> None:
    one, [first, *_] = student(backend), texts(backend)
    before = [weight.clone() for weight in backend.net.parameters()]
    with pytest.raises(IndexError):
        one.after(one.gradient(first), 0.1, [Tokens("beyond", [1, 2], [9_999])])
    assert all(map(torch.equal, before, backend.net.parameters()))


def test_what_is_wanted_of_gradients_is_in_the_key_and_comes_back(tmp_path: Path) -> None:
    read, target = Tokens("x", [1, 2, 3], [2]), Tokens("t", [1, 4], [1])
    wants = [
        Want(),
        Want(gradient=8),
        Want(gradient=16),
        Want(descent=Descent(0.1, (target,))),
        Want(descent=Descent(0.2, (target,))),
        Want(descent=Descent(0.1, (target, target))),
        Want(descent=Descent(0.1, (Tokens("t", [1, 4], [0]),))),
    ]
    assert len({reading_key(read, "m", "e", want) for want in wants}) == len(wants)
    other = Want(descent=Descent(0.1, (Tokens("another id", [1, 4], [1]),)))
    assert reading_key(read, "m", "e", other) == reading_key(read, "m", "e", wants[3])
