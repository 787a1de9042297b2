"""Networks that name what they are shown: one place an example, one outcome of a few."""

from __future__ import annotations

import functools
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.core.methods import lazy
from pipeline.display import listed
from pipeline.errors import Refused
from pipeline.kinds.network import Network, Packed, Seen, network
from pipeline.model import heads
from pipeline.model.chat import Chat
from pipeline.model.folder import PLACES
from pipeline.model.load import positions
from pipeline.model.taps import Taps
from pipeline.tables.graphs import UNKNOWN
from pipeline.tables.ids import Cell
from pipeline.tables.lists import padded, whole
from pipeline.tables.pictures import pixels
from pipeline.tables.tensors import arrays, cell, stacked

if TYPE_CHECKING:
    import torch
    import transformers
else:
    torch = lazy("torch")
    transformers = lazy("transformers")

BUCKET = 16
TOKENS, IMAGE = "tokens", "image"
GIVES = ("student_NV", "target_N", "teacher", "logprob_N", "reference_N", "features", "teacher_features")
# Of a network that has `put`.
AGAIN = (*GIVES, "look", "teacher_look")


@network(
    takes=("text",),
    gives=AGAIN,
    heads=("main",),
    backend="network.local",
)
def text() -> Network:
    """A sequence classifier over text, such as BERT: the place is the whole text, the outcomes are class names.

    Paper: Devlin et al. 2019 (BERT), fine-tuning for classification.
    Differs: the text is the contents of all turns, a line each; no chat template.
    """
    return Text()


@network(takes=(IMAGE,), gives=AGAIN, heads=("main",), backend="network.local")
def image() -> Network:
    """A classifier of pictures, such as ViT or DeiT: the place is the whole picture, the outcomes are class names.

    A picture is as large as the model's form says, in as many channels. Outcomes stand in the order of their names,
    whatever order a folder has them in, so that those of a teacher and a student of the same names are the same.

    Paper: Dosovitskiy et al. 2021 (ViT, arXiv 2010.11929); Touvron et al. 2021 (DeiT, arXiv 2012.12877).
    Differs: the words of a prompt are not read.
    """
    return Image()


class Named(ABC):
    """What classifiers share."""

    def outcomes(self, form: Path) -> list[str]:
        """The names of a form's outcomes, in the order of its columns."""
        names: list[str] = json.loads((form / PLACES).read_text("utf-8"))["outcomes"]
        return names

    def target(self, form: Path, answer: str) -> int:
        """The number of the outcome that an answer names, -1 for one that is none."""
        names, given = self.outcomes(form), answer.strip()
        return names.index(given) if given in names else -1

    @abstractmethod
    def asked(self, form: Path, messages: Sequence[dict[str, str]], inputs: Cell | None = None) -> Any:
        """What is asked about, if the model can be shown it."""

    def pack(self, form: Path, messages: Sequence[dict[str, str]], answer: str, inputs: Cell | None = None) -> Packed:
        self.asked(form, messages, inputs)
        target = self.target(form, answer)
        strange = target < 0 and answer.strip() != UNKNOWN
        told = "is none of the student's outcomes, so its place is unknown" if strange else ""
        return Packed([target], [(0, 1)], length=1, told=told)

    def length(self, shown: Any) -> int | None:
        """No token is read."""
        return None

    def places(self, shown: Any) -> int:
        """How many places something has."""
        return 1

    def look(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], taps: Sequence[str]) -> Seen:
        """`last` is what the head is given; a module's tap is its output at the first token, or its mean over a
        picture."""
        net: Any = model
        head = next((getattr(net, name) for name in ("classifier", "score") if hasattr(net, name)), None)
        if type(head) is not torch.nn.Linear:
            raise Refused(
                f"{type(net).__name__} has no linear head called classifier or score; use BERT's or ViT's kind of model"
            )
        given: list[torch.Tensor] = []

        def keep(_head: Any, arguments: tuple[torch.Tensor, ...]) -> None:
            given.append(arguments[0])

        with Taps(model, [t for t in taps if t != "last"]) as seen, head.register_forward_pre_hook(keep):
            net(**self.given(net, inputs))
        [states_ND] = given
        features = {name: _at_place(value) for name, value in seen.items()}
        if "last" in taps:
            features["last"] = states_ND
        return Seen(states_ND, {"main": head, **heads.of(model)}, features)

    def put(
        self, output: torch.Tensor, inputs: Mapping[str, torch.Tensor], make: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Of a map all pixels move, so that their mean is what is made of it."""
        states_ND = _at_place(output)
        made_ND = make(states_ND)
        if output.dim() == 3:
            return torch.cat([made_ND[:, None], output[:, 1:]], 1)
        return made_ND if output.dim() == 2 else output + (made_ND - states_ND)[:, :, None, None]

    @abstractmethod
    def given(self, net: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A batch as the model's own arguments."""

    def width(self, model: torch.nn.Module) -> int:
        net: Any = model
        return int(net.config.num_labels)

    def save(self, model: torch.nn.Module, out: Path) -> None:
        net: Any = model
        with heads.apart(net):
            net.save_pretrained(out)
        heads.save(net, out)


def _at_place(value: torch.Tensor) -> torch.Tensor:
    """A module's output at the place: of tokens [B, T, D] the first, of a map [B, D, H, W] the mean."""
    return value[:, 0] if value.dim() == 3 else value.mean((2, 3)) if value.dim() == 4 else value


class Text(Named):
    """See `text`."""

    def __init__(self) -> None:
        self.chat = functools.cache(Chat)

    def asked(self, form: Path, messages: Sequence[dict[str, str]], inputs: Cell | None = None) -> np.ndarray:
        """What the model reads of a conversation, [T]."""
        if inputs:
            names = ", ".join(a["name"] for a in inputs)
            raise Refused(f"is about {names}, and a classifier of texts reads words alone")
        return np.array(self.chat(form).encode("\n".join(m["content"] for m in messages)), np.int32)

    def length(self, shown: np.ndarray) -> int | None:
        """How many tokens are read."""
        return len(shown)

    def pack(self, form: Path, messages: Sequence[dict[str, str]], answer: str, inputs: Cell | None = None) -> Packed:
        read, target = self.asked(form, messages, inputs), self.target(form, answer)
        known = target >= 0 or not answer.strip()
        told = "" if known else f"name none of the outcomes {listed(self.outcomes(form))}, so what they say is unknown"
        return Packed([target], [(0, 1)], cell({TOKENS: read}), len(read), told)

    def load(self, folder: Path, dtype: str) -> torch.nn.Module:
        transformers.utils.logging.set_verbosity_error()
        auto = transformers.AutoModelForSequenceClassification
        net = auto.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        heads.load(net, folder)
        return net

    def collate(self, rows: pa.Table) -> dict[str, torch.Tensor]:
        """token_ids [B, T] padded on the right, and mask [B, T]."""
        return self.batch([self.shown(given) for given in rows["inputs"].to_pylist()])

    def shown(self, given: Cell | None) -> np.ndarray:
        """The text in tokens that an example's `inputs` hold, [T]."""
        tokens = arrays(given or [])[TOKENS]
        assert isinstance(tokens, np.ndarray)
        return tokens

    def batch(self, read: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """What `look` needs of texts in tokens."""
        sizes = np.array([len(tokens) for tokens in read])
        width = math.ceil(max(1, int(sizes.max())) / BUCKET) * BUCKET
        return {
            "token_ids": torch.from_numpy(padded(np.concatenate(read), sizes, width).astype(np.int64)),
            "mask": torch.from_numpy((np.arange(width) < sizes[:, None]).astype(np.int64)),
        }

    def given(self, net: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        token_ids = inputs["token_ids"]
        at = positions(net, token_ids)
        return {"input_ids": token_ids, "attention_mask": inputs["mask"]} | ({} if at is None else {"position_ids": at})


class Image(Named):
    """See `image`."""

    apart = True

    def asked(self, form: Path, messages: Sequence[dict[str, str]], inputs: Cell | None = None) -> np.ndarray:
        """The picture that is asked about, [H, W, C] from 0 to 255."""
        picture = Image.shown(self, inputs)
        told = json.loads((form / PLACES).read_text("utf-8"))["inputs"][IMAGE]
        if list(picture.shape) != told:
            raise Refused(
                f"is a picture of {_sized(picture.shape)}, and the model looks at {_sized(told)}: let `files.pictures` "
                f"make them so with `size: [{told[0]}, {told[1]}]` and `channels: {told[2]}`"
            )
        return picture

    def load(self, folder: Path, dtype: str) -> torch.nn.Module:
        from pipeline.nets.kept import opened

        net = opened(folder, transformers.AutoModelForImageClassification, dtype)
        if (folder / PLACES).exists():
            _in_order(net, self.outcomes(folder))
        heads.load(net, folder)
        return net

    def collate(self, rows: pa.Table) -> dict[str, torch.Tensor]:
        """picture [B, C, H, W], from 0 to 1."""
        pictures = stacked(whole(rows, "inputs"), IMAGE)
        if pictures is not None and pictures.dtype == np.uint8 and pictures.ndim == 4:
            return self.batch(pictures)
        return self.batch([self.shown(given) for given in rows["inputs"].to_pylist()])

    def shown(self, given: Cell | None) -> np.ndarray:
        """The picture that `inputs` hold."""
        found = arrays(given or []).get(IMAGE)
        if found is None:
            names = ", ".join(a["name"] for a in given or []) or "nothing but words"
            raise Refused(f"is about {names}, and a classifier of pictures needs an input called {IMAGE!r}")
        if isinstance(found, bytes):
            return pixels(found)
        picture = found[:, :, None] if found.ndim == 2 else found
        if picture.dtype != np.uint8 or picture.ndim != 3:
            raise Refused(f"the input {IMAGE!r} is {found.dtype} of {list(found.shape)}, and not u8 of [height, width]")
        return picture

    def batch(self, read: Any) -> dict[str, torch.Tensor]:
        """What `look` needs of pictures [B, H, W, C]."""
        # In one pass, and not in the memory of the rows.
        channels_first = np.moveaxis(np.asarray(read), 3, 1).astype(np.float32, order="C")
        return {IMAGE: torch.from_numpy(channels_first).div_(255)}

    def given(self, net: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Pictures with the mean and the deviation of every channel that the model was taught with."""
        told = net.config.image_mean, net.config.image_std
        mean, std = (inputs[IMAGE].new_tensor(each)[:, None, None] for each in told)
        return {"pixel_values": ((inputs[IMAGE] - mean) / std).to(net.dtype)}


def _sized(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _in_order(net: Any, names: Sequence[str]) -> None:
    """Put the rows of a model's head in the order of its form's outcomes."""
    own = [net.config.id2label[i] for i in range(net.config.num_labels)]
    if own == list(names):
        return
    if sorted(own) != sorted(names):
        raise Refused(f"the model names {', '.join(own)}, and its {PLACES} {', '.join(names)}; they must be the same")
    order = torch.tensor([own.index(name) for name in names])
    with torch.no_grad():
        for weight in net.classifier.parameters():
            weight.copy_(weight[order])
    net.config.id2label = dict(enumerate(names))
    net.config.label2id = {name: i for i, name in enumerate(names)}
