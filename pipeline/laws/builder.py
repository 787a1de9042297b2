"""Laws of builders: what is made is a whole model, and what of the base is not replaced computes what it did."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.core.methods import Method, find
from pipeline.errors import Refused
from pipeline.kinds.backend import card_of
from pipeline.kinds.builder import Builder
from pipeline.laws.law import arguments, build, must
from pipeline.model.folder import CAUSAL, STACKED, TOKENIZER_FILES, network_of
from pipeline.tables.parquet import folder_digest

SIZES = {"width": 8, "layers": 1, "heads": 2, "context": 16}
PATCHED: dict[str, Any] = {"size": (8, 8), "channels": 1, "patch": 4}
PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "classifier.image": ("vision.vit", {**PATCHED, "outcomes": ("a", "b")}),
    "masked.patches": ("vision.patches", PATCHED),
}
DENOISERS: dict[str, tuple[str, dict[str, Any]]] = {
    "points.denoiser": ("points.denoiser", {}),
    "images.denoiser": ("diffusion.pictures", {"size": (4, 4)}),
}
# Texts of letters that every model of words here knows.
TEXTS = ("abba", "b", "aab")


@functools.cache
def model(network: str, seed: int) -> tempfile.TemporaryDirectory[str]:
    """The folder of a small model of a network; those of different seeds differ in an outcome or a letter, too."""
    place = tempfile.TemporaryDirectory()
    folder = Path(place.name) / f"model_{seed}"
    folder.mkdir()
    if network == CAUSAL:
        letters = {"alphabet": "ab" + "cd"[seed], "prompt_width": 0}
        fill = build(find("origin", "fresh.gpt2"), {**SIZES, **letters, "seed": seed})
    elif network == STACKED:
        shape = {"size": 4, "patch": 2, "tower": 1, "alphabet": "abcd"}
        fill = build(find("origin", "fresh.llava"), {**SIZES, **shape, "seed": seed})
    elif network in PICTURES:
        name, told = PICTURES[network]
        fill = build(find("origin", name), {**{k: v for k, v in SIZES.items() if k != "context"}, **told, "seed": seed})
    elif network == "language.masked":
        fill = build(find("origin", "text.masked"), {**SIZES, "alphabet": "abcd", "seed": seed})
    elif network in DENOISERS:
        origin, more = DENOISERS[network]
        fill = build(find("origin", origin), {"width": 8, "layers": 1, "seed": seed, **more})
    else:
        fill = build(find("origin", "text.bert"), {**SIZES, "alphabet": "abcd", "outcomes": ("a", "b"), "seed": seed})
    (folder / "model.json").write_text(json.dumps(fill(folder)), "utf-8")
    return place


@dataclass(frozen=True)
class Case:
    """A builder with arguments, on a base and a donor of these networks."""

    method: Method
    arguments: dict[str, Any]
    networks: tuple[str, str]
    builder: Builder

    def __str__(self) -> str:
        return "-".join([self.method.name, *(f"{k}={v}" for k, v in self.arguments.items()), *self.networks])

    @property
    def folders(self) -> tuple[Path, Path]:
        """Base and donor; the base twice if it takes nothing of a donor."""
        base, donor = self.networks
        of = 1 if self.method.traits["donors"] else 0
        return Path(model(base, 0).name) / "model_0", Path(model(donor, of).name) / f"model_{of}"

    def made(self, out: Path, seed: int = 3) -> Path:
        """The folder of what it makes."""
        out.mkdir()
        card = self.builder(*self.folders, out, seed)
        (out / "model.json").write_text(json.dumps(card), "utf-8")
        return out


def cases(method: Method) -> Iterator[Case]:
    """A builder with several arguments, on every network of a base that it takes with them."""
    for base in method.traits["bases"]:
        donors = method.traits["donors"] or (base,)
        for given, donor in product(arguments(method, {}), (base,) if base in donors else donors):
            case = Case(method, given, (base, donor), build(method, given))
            with tempfile.TemporaryDirectory() as place:
                try:
                    case.made(Path(place) / "out")
                except Refused:
                    continue
            yield case


def opened(folder: Path) -> tuple[Any, Any]:
    """A model and its network."""
    network = find("network", network_of(folder / "tokenizer")).factory()
    return network, network.load(folder, card_of(folder)["dtype"])


def states(folder: Path) -> torch.Tensor:
    """What a model's own head is given of the texts, one after another, or of pictures."""
    from pipeline.model.chat import Chat

    network, net = opened(folder)
    if network_of(folder / "tokenizer") in PICTURES:
        pictures = np.random.default_rng(0).integers(0, 256, (3, *PATCHED["size"], 1)).astype(np.uint8)
        with torch.no_grad():
            return network.look(net, network.batch(pictures), ()).states_ND
    if network_of(folder / "tokenizer") in DENOISERS:
        shape = 5, *net.config.shape
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).numpy()
        with torch.no_grad():
            return network.look(net, network.batch([noise]), ()).states_ND
    chat, found = Chat(folder / "tokenizer"), []
    for text in TEXTS:
        tokens = torch.tensor([chat.encode(text)])
        at = {"token_ids": tokens, "mask": torch.ones_like(tokens), "at_N": torch.arange(tokens.shape[1])}
        with torch.no_grad():
            found.append(network.look(net, at, ()).states_ND)
    return torch.cat(found)


def a_whole_model(case: Case) -> None:
    """The folder is opened by the network that its form names, its card says what runs it, and every head that is
    declared is there. End with `finish`, and give the trait `heads`."""
    with tempfile.TemporaryDirectory() as place:
        out = case.made(Path(place) / "out")
        must({"backend", "model_id", "dtype"} <= card_of(out).keys(), f"its card is {card_of(out)}")
        must(any((out / "tokenizer" / name).exists() for name in TOKENIZER_FILES), "it has no tokenizer/")
        network, net = opened(out)
        must(network.width(net) > 0, "its own head names nothing")
        declared = set(
            case.method.traits.get("heads", lambda _: ())(case.method.arguments(**case.arguments).model_dump())
        )
        must(declared <= set(getattr(net, "heads", ())), f"it has no head {', '.join(declared)}")


def the_same_of_the_same(case: Case) -> None:
    """The same models and the same seed give the same bytes, and another seed others only where `random` says so. Draw
    from a generator of the seed alone."""
    with tempfile.TemporaryDirectory() as place:
        first, second, other = (case.made(Path(place) / f"out{i}", seed) for i, seed in enumerate((3, 3, 4)))
        must(folder_digest(first) == folder_digest(second), "a second call gives other bytes")
        differs = folder_digest(first) != folder_digest(other)
        must(differs == case.method.traits["random"], f"another seed {'changes it' if differs else 'changes nothing'}")


def nothing_is_written_into_what_it_reads(case: Case) -> None:
    """Base and donor stay as they are. Write into `out` alone."""
    before = [folder_digest(folder) for folder in case.folders]
    with tempfile.TemporaryDirectory() as place:
        case.made(Path(place) / "out")
    must(before == [folder_digest(folder) for folder in case.folders], "a folder has changed")


def what_reads_the_text_is_the_base(case: Case) -> None:
    """A text that the base's tokenizer cuts is read as the base reads it: the states before the head are the same. Keep
    all weights that are not replaced, or say `keeps=False`."""
    with tempfile.TemporaryDirectory() as place:
        out = case.made(Path(place) / "out")
        torch.testing.assert_close(states(out), states(case.folders[0]), rtol=0, atol=0)


Law = Callable[[Case], None]
LAWS: dict[Law, Callable[[Case], bool]] = {
    a_whole_model: lambda case: True,
    the_same_of_the_same: lambda case: True,
    nothing_is_written_into_what_it_reads: lambda case: True,
    what_reads_the_text_is_the_base: lambda case: case.method.traits["keeps"],
}
