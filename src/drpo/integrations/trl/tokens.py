"""The token log of a trainer of TRL's."""

from __future__ import annotations

from typing import Any

import torch

from drpo.batch import TokenBatch
from drpo.run_directory import RunDirectory
from drpo.token_log import TokenLog


class TrainerTokens:
    """``OUTPUT_DIR/tokens``, a file an optimizer step; a training that starts again writes it again.

    Args:
        output_dir: of the run.
        tokenizer: gives the texts.
        limit: no response is added to an optimizer step that has as many tokens.
    """

    def __init__(self, output_dir: str, tokenizer: Any, limit: int):
        self._folder, self._tokenizer, self._limit = RunDirectory(output_dir).tokens, tokenizer, limit
        self._log = self._new()

    def add(self, batch: TokenBatch, tokens: torch.Tensor, step: int, update: int | None = None) -> None:
        """Record the responses of a micro-batch; see :meth:`drpo.TokenLog.add`."""
        if self._log.step is not None and step < self._log.step:
            self._log = self._new()
        self._log.add(batch, step=step, update=update, tokens=tokens)

    def _new(self) -> TokenLog:
        return TokenLog(self._folder, tokenizer=self._tokenizer, limit=self._limit)
