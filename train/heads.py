"""Heads that transformers has not: a pooled classifier, and pooled vectors."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file

HEAD = "head.safetensors"


class Pooled(torch.nn.Module):
    """A transformers body whose token vectors are pooled to one, and classified or normalized.

    Saved as the body's own folder, which `AutoModel` opens, and the head beside it.
    """

    def __init__(self, body: Any, pooling: str, classes: int = 0, normalize: bool = False) -> None:
        super().__init__()
        self.body, self.pooling, self.normalize = body, pooling, normalize
        self.config = body.config
        size = body.config.hidden_size
        self.attention = torch.nn.Linear(size, 1) if pooling == "attention" else None
        self.dropout = torch.nn.Dropout(getattr(body.config, "hidden_dropout_prob", None) or 0.0)
        self.classifier = torch.nn.Linear(size, classes) if classes else None
        self.pairs: torch.nn.Linear | None = None
        """(u, v, |u - v|) to classes: only while embeddings are trained with the softmax loss"""

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> SimpleNamespace:
        """Logits (B, C), or vectors (B, D) where there are no classes."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        tokens = self.body(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
        vectors = self.pool(tokens.float(), attention_mask)
        if self.classifier is not None:
            vectors = self.classifier(self.dropout(vectors))
        elif self.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return SimpleNamespace(logits=vectors)

    def pool(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, T, D) and (B, T) to (B, D)."""
        if self.pooling == "cls":
            return tokens[:, 0]
        weights: torch.Tensor
        if self.pooling == "lasttoken":
            last = mask.sum(1) - 1
            return tokens.gather(1, last[:, None, None].expand(-1, 1, tokens.shape[-1]))[:, 0]
        present = mask.to(torch.bool)[:, :, None]
        if self.pooling == "max":
            return tokens.masked_fill(~present, float("-inf")).amax(1)
        if self.attention is not None:
            weights = self.attention(tokens).masked_fill(~present, float("-inf")).softmax(1)
            return (tokens * weights).sum(1)
        if self.pooling == "weightedmean":
            weights = mask.cumsum(1)[:, :, None] * present
            return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)
        if self.pooling == "mean_sqrt_len_tokens":
            return (tokens * present).sum(1) / present.sum(1).clamp(min=1).to(tokens.dtype).sqrt()
        return (tokens * present).sum(1) / present.sum(1).clamp(min=1)

    def save_pretrained(self, folder: Path) -> None:
        self.body.save_pretrained(folder)
        head = {n: w for n, w in self.state_dict().items() if not n.startswith(("body.", "pairs."))}
        if head:
            save_file(head, folder / HEAD)

    def load_head(self, folder: Path) -> None:
        """Read what `save_pretrained` wrote beside the body. Raises OSError, ValueError."""
        if self.classifier is None:
            return
        missing, unexpected = self.load_state_dict(load_file(folder / HEAD), strict=False)
        missing = [name for name in missing if not name.startswith("body.")]
        if missing or unexpected:
            raise ValueError(f"{HEAD} has not the tensors {missing}, or others too: {unexpected}")

    def activation_checkpointing_enable(self, **settings: Any) -> None:
        self.body.activation_checkpointing_enable(**settings)
