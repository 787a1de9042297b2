"""Models of the characters of a text.

Imports torch: whoever only names a method must not import it.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from pipeline.model.load import positions


class LettersConfig(transformers.BertConfig):
    """What a `Letters` is made of: its tokens are the characters, its vocabulary all words of `run` of them."""

    model_type = "stillhouse-letters"

    def __init__(self, tokens: int = 1, run: int = 1, **others: Any) -> None:
        self.tokens, self.run = tokens, run
        super().__init__(**{**others, "vocab_size": tokens**run, "num_labels": tokens})


class Letters(PreTrainedModel):
    """A BERT over words of `run` characters each, of which some are hidden behind a learnt vector, as a whole if one of
    their characters is. A character's state is that of its word and where in it the character stands."""

    config_class = LettersConfig
    base_model_prefix = "bert"
    main_input_name = "token_ids"

    def __init__(self, config: LettersConfig) -> None:
        super().__init__(config)
        self.bert = transformers.BertModel(config, add_pooling_layer=False)
        self.hidden = nn.Parameter(torch.randn(config.hidden_size) * config.initializer_range)
        self.offset = nn.Embedding(config.run, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.tokens)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as their own classes make them."""

    def forward(self, token_ids: torch.Tensor, mask: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """[B, T, V] of token_ids and mask [B, T], and which of the tokens behind the first are hidden [B, T - 1]."""
        run, width = self.config.run, hidden.shape[1]
        by_word = [
            nn.functional.pad(each, [0, -width % run]).unflatten(1, (-1, run))
            for each in (token_ids[:, 1:], mask[:, 1:], hidden)
        ]
        spelt_BW = (by_word[0] * self.config.tokens ** torch.arange(run, device=token_ids.device)).sum(2)
        words = self.bert.embeddings.word_embeddings(torch.cat([token_ids[:, :1], spelt_BW], 1))
        hides = nn.functional.pad((by_word[2] == 1).any(2), [1, 0])
        there = torch.cat([mask[:, :1], by_word[1].amax(2)], 1)
        words = torch.where(hides[..., None], self.hidden, words)
        at = positions(self, there)
        read = self.bert(inputs_embeds=words, attention_mask=there, position_ids=at).last_hidden_state
        letters = (read[:, 1:, None] + self.offset.weight).flatten(1, 2)[:, :width]
        return self.classifier(torch.cat([read[:, :1], letters], 1))
