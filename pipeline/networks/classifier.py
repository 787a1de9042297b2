"""Networks that name what they are shown: one place an example, one outcome of a few."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
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
from pipeline.model.taps import Taps
from pipeline.tables.ids import Cell
from pipeline.tables.lists import padded
from pipeline.tables.tensors import arrays, cell

if TYPE_CHECKING:
    import torch
    import transformers
else:
    torch = lazy("torch")
    transformers = lazy("transformers")

BUCKET = 16
TOKENS = "tokens"


@network(
    takes=("text",),
    gives=("student_NV", "target_N", "teacher", "logprob_N", "reference_N", "features", "teacher_features"),
    heads=("main",),
    backend="network.local",
)
def text() -> Network:
    """A sequence classifier over text, such as BERT: the place is the whole text, the outcomes are class names.

    Paper: Devlin et al. 2019 (BERT), fine-tuning for classification.
    Differs: the text is the contents of all turns, a line each; no chat template.
    """
    return Text()


class Text:
    """See `text`."""

    def outcomes(self, form: Path) -> list[str]:
        """The names of a form's outcomes, in the order of its columns."""
        names: list[str] = json.loads((form / PLACES).read_text("utf-8"))["outcomes"]
        return names

    def tokens(self, chat: Chat, messages: Sequence[dict[str, str]]) -> np.ndarray:
        """What the model reads of a conversation, [T]."""
        return np.array(chat.encode("\n".join(m["content"] for m in messages)), np.int32)

    def pack(self, form: Path, messages: Sequence[dict[str, str]], answer: str) -> Packed:
        names, given = self.outcomes(form), answer.strip()
        read = self.tokens(Chat(form), messages)
        target = names.index(given) if given in names else -1
        told = f"name none of the outcomes {listed(names)}, so what they say is unknown" if given and target < 0 else ""
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

    def look(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], taps: Sequence[str]) -> Seen:
        """`last` is what the head is given; a module's tap is its output at the first token."""
        net: Any = model
        head = next((getattr(net, name) for name in ("classifier", "score") if hasattr(net, name)), None)
        if type(head) is not torch.nn.Linear:
            raise Refused(
                f"{type(net).__name__} has no linear head called classifier or score; use BERT's kind of model"
            )
        given: list[torch.Tensor] = []

        def keep(_head: Any, arguments: tuple[torch.Tensor, ...]) -> None:
            given.append(arguments[0])

        with Taps(model, [t for t in taps if t != "last"]) as seen, head.register_forward_pre_hook(keep):
            net(input_ids=inputs["token_ids"], attention_mask=inputs["mask"])
        [states_ND] = given
        features = {name: value[:, 0] if value.dim() == 3 else value for name, value in seen.items()}
        if "last" in taps:
            features["last"] = states_ND
        return Seen(states_ND, {"main": head, **heads.of(model)}, features)

    def width(self, model: torch.nn.Module) -> int:
        net: Any = model
        return int(net.config.num_labels)

    def save(self, model: torch.nn.Module, out: Path) -> None:
        net: Any = model
        with heads.apart(net):
            net.save_pretrained(out)
        heads.save(net, out)
