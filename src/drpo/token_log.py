"""The token log that `drpo inspect` reads (docs/inspect.md): a JSONL file a step, a line a response.

Shapes: ``N`` kept response tokens of a batch, ``S`` its responses that have some.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from drpo.batch import TokenBatch
from drpo.checks import as_tensor, is_count, shorten
from drpo.divergence import at_least_float32
from drpo.errors import ConfigError, DataError
from drpo.files import StrPath, append_records, flush, writing
from drpo.run_directory import numbered_files, token_file
from drpo.schema import numbered
from drpo.support import Support

#: The fields of a batch that are written, those that are there.
FIELDS = ("logprobs", "behavior_logprobs", "proximal_logprobs", "entropy")
#: Tokens of an update; about 0.8 MB.
LIMIT = 8192
_FIX = "Free space, fix its permissions, or choose another folder."


class Decoder(Protocol):
    """What the log needs of a tokenizer."""

    def decode(self, token_ids: Any, /) -> Any:
        """The text of a list of tokens."""
        ...


class TokenLog:
    """Writes the tokens of your own training loop for `drpo inspect`, which can read beside it.

    A step's file is ``PATH/step-NNNNNN.jsonl``, with a line a response. Each :meth:`add` appends whole lines. The first
    one deletes the files of its step and of later steps that an earlier run left in the folder: a loop that goes on
    from a checkpoint writes them again. One process writes a folder.

    Args:
        path: the folder; it is made if need be.
        tokenizer: its ``decode`` gives the texts where :meth:`add` gets none.
        limit: no response is added to an update that has as many tokens; None writes all of them. Which responses of
            a call are written is drawn at random, the same ones each time: all responses of an update have the same
            chance if they come in one call. Of micro-batches the first ones fill the update, because a line is written
            at once: that an update is over shows only in the next one, and the last would never be written. Put the
            responses in random order before they are split, and the first ones are a random sample.

    Raises:
        ConfigError: ``limit`` is not a whole number above 0. WriteError: the folder cannot be made.
    """

    def __init__(self, path: StrPath, *, tokenizer: Decoder | None = None, limit: int | None = LIMIT):
        if limit is not None and not is_count(limit):
            raise ConfigError(f"limit must be a whole number of tokens above 0, or None for no limit, got {limit!r}")
        self.path = Path(path)
        self.limit = limit
        self._texts = None if tokenizer is None else TokenTexts(tokenizer.decode)
        #: Of the last :meth:`add`; None before the first.
        self.step: int | None = None
        self._sequences = 0
        self._tokens: Counter[int | None] = Counter()
        self._closed = False
        with writing(self.path, _FIX):
            self.path.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        batch: TokenBatch,
        *,
        step: int,
        update: int | None = None,
        tokens: torch.Tensor | Sequence[int] | None = None,
        texts: Sequence[str] | None = None,
        rewards: torch.Tensor | Sequence[float] | None = None,
        groups: torch.Tensor | Sequence[int] | Sequence[str] | None = None,
        support: Support | None = None,
    ) -> int:
        """Append the responses of a batch or micro-batch, some at random where the limit does not allow all.

        Args:
            batch: its log π are those under the weights that are being updated; a sequence is a response, whole.
            step: the rollout batch, or the optimizer step; it never falls.
            update: the optimizer step within the rollout batch, from 0, if there are several.
            tokens: ``[N]`` ids of the tokens.
            texts: ``N`` texts of the tokens.
            rewards: ``[S]`` the reward of each response.
            groups: ``[S]`` whole numbers or texts; responses to one prompt share one, within the step.
            support: of ``N`` tokens, what each was drawn from and log π is renormalized over (top-p, top-k, min-p).

        Returns:
            How many of the batch's tokens were written.

        Raises:
            DataError: shapes or types are wrong, ``step`` falls, or the log is closed. WriteError: the disk refuses.
        """
        ids, facts = _checked(batch, tokens, texts), _facts(batch, rewards, groups)
        if support is not None and len(support) != len(batch):
            raise DataError(f"support must be that of the batch's {len(batch)} tokens, got {len(support)}")
        if self._closed:
            raise DataError(
                f"the token log {self.path} is closed; add inside its `with` block, or make another TokenLog"
            )
        self._begin(_index("step", step))
        update = None if update is None else _index("update", update)
        spans = list(_spans(_lengths(batch)))
        chosen = self._room([stop - start for start, stop in spans], update)
        lengths = [spans[row][1] - spans[row][0] for row in chosen]
        count = sum(lengths)
        if not count:
            return 0
        positions = [position for row in chosen for position in range(*spans[row])]
        where = torch.tensor(positions, device=batch.logprobs.device)
        with torch.no_grad():
            records = _records(batch.select(where), lengths)
        kept = [{}] * len(lengths) if support is None else support_by_response(support[where.cpu()].to("cpu"), lengths)
        said = None if texts is None else [str(texts[position]) for position in positions]
        words = self._words(None if ids is None else ids[where.to(ids.device)], said)
        moment = {"step": step} | ({} if update is None else {"update": update})
        lines = [
            numbered(
                "tokens",
                {
                    **moment,
                    "sequence_id": self._sequences + row,
                    **{name: values[chosen[row]] for name, values in facts.items()},
                    **_part(words, start, stop),
                    **record,
                    **kept[row],
                },
            )
            for row, (record, (start, stop)) in enumerate(zip(records, _spans(lengths), strict=True))
        ]
        with writing(self.path, _FIX):
            append_records(self.path / token_file(step), lines)
        self._sequences += len(lengths)
        self._tokens[update] += count
        return count

    def close(self) -> None:
        """Wait until the disk has what was written; nothing can be added after it."""
        if not self._closed and self.step is not None and (file := self.path / token_file(self.step)).is_file():
            with writing(self.path, _FIX):
                flush(file)
        self._closed = True

    def __enter__(self) -> TokenLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, step: int) -> None:
        """The counts start again with a step, the first of which replaces what an earlier run wrote from there on."""
        if step == self.step:
            return
        if self.step is None:
            with writing(self.path, _FIX):
                for number, file in numbered_files(self.path, "step"):
                    if number >= step:
                        file.unlink()
        elif step < self.step:
            raise DataError(
                f"step {step} was added after step {self.step}; the steps of a token log never fall. Number them on, "
                "or make another TokenLog where a loop starts again."
            )
        self.step, self._sequences = step, 0
        self._tokens.clear()

    def _room(self, lengths: list[int], update: int | None) -> list[int]:
        """The responses, of those with so many tokens, that the limit allows: all in order, or some at random."""
        written = self._tokens[update]
        if self.limit is None or written + sum(lengths) <= self.limit:
            return list(range(len(lengths)))
        allowed: list[int] = []
        for row in random.Random(f"{self.step} {update} {written}").sample(range(len(lengths)), len(lengths)):
            if written >= self.limit:
                break
            allowed.append(row)
            written += lengths[row]
        return allowed

    def _words(self, ids: torch.Tensor | None, texts: Sequence[str] | None) -> dict[str, Sequence[Any]]:
        """The columns of tokens and texts that there are."""
        listed = None if ids is None else ids.tolist()
        if texts is None and listed is not None and self._texts is not None:
            texts = [self._texts[token] for token in listed]
        return {name: values for name, values in (("tokens", listed), ("texts", texts)) if values is not None}


class TokenTexts(dict[int, str]):
    """Token → its text, decoded once."""

    def __init__(self, decode: Callable[[list[int]], Any]):
        super().__init__()
        self._decode = decode

    def __missing__(self, token: int) -> str:
        self[token] = text = self._decode([token])
        return text


def lists_by_response(batch: TokenBatch, lengths: Sequence[int]) -> list[dict[str, list[float]]]:
    """What ``batch`` knows of its tokens, one dict for each response; ``lengths`` add up to ``N``."""
    fields = {
        name: at_least_float32(values.detach()).cpu().split(list(lengths))
        for name in FIELDS
        if (values := getattr(batch, name)) is not None
    }
    return [{name: _shortest(parts[row]) for name, parts in fields.items()} for row in range(len(lengths))]


def support_by_response(support: Support, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """What a record holds of the tokens that each one of a response was drawn from, one dict for each response."""
    parts = [support[start:stop] for start, stop in _spans(lengths)]
    return [{"support_sizes": part.sizes.tolist(), "support_ids": part.packed()} for part in parts]


def _records(batch: TokenBatch, lengths: list[int]) -> Iterator[dict[str, list[float]]]:
    """The lists of each response, its advantages among them."""
    advantages = at_least_float32(batch.advantages).cpu().split(lengths)
    for values, lists in zip(advantages, lists_by_response(batch, lengths), strict=True):
        yield {"advantages": _shortest(values), **lists}


def _shortest(values: torch.Tensor) -> list[float]:
    """``[N]`` float32 with no more digits than tell them apart."""
    return [float(str(value)) for value in values.float().numpy()]


def _lengths(batch: TokenBatch) -> list[int]:
    """The number of tokens of each sequence."""
    if batch.sequence_ids is None:
        return [len(batch)] if len(batch) else []
    return batch.sequence_ids.unique_consecutive(return_counts=True)[1].tolist()


def _spans(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    start = 0
    for length in lengths:
        yield start, start + length
        start += length


def _part(columns: dict[str, Sequence[Any]], start: int, stop: int) -> dict[str, list[Any]]:
    return {name: list(values[start:stop]) for name, values in columns.items()}


def _checked(batch: Any, tokens: Any, texts: Any) -> torch.Tensor | None:
    """``tokens`` as a tensor ``[N]``.

    Raises:
        DataError: something is not what it must be.
    """
    if not isinstance(batch, TokenBatch):
        raise DataError(
            f"batch must be a drpo.TokenBatch, got {type(batch).__name__}; make one with "
            "drpo.TokenBatch(logprobs, behavior_logprobs, advantages, sequence_ids=…) or TokenBatch.from_padded"
        )
    if texts is not None and (isinstance(texts, str) or len(texts) != len(batch)):
        given = "one text" if isinstance(texts, str) else f"{len(texts)}"
        raise DataError(f"texts must hold a text for each of the batch's {len(batch)} tokens, got {given}")
    if tokens is None:
        return None
    ids = as_tensor("tokens", tokens)
    if ids.shape != batch.logprobs.shape:
        hint = "; for padded ids pass ids[mask]" if ids.dim() == 2 else ""
        raise DataError(
            f"tokens must be [N] = {list(batch.logprobs.shape)} as logprobs is, got {list(ids.shape)}{hint}"
        )
    if ids.dtype == torch.bool or ids.dtype.is_floating_point or ids.dtype.is_complex:
        raise DataError(f"tokens must be whole numbers, the ids of the tokens, got {ids.dtype}")
    return ids


def _facts(batch: TokenBatch, rewards: Any, groups: Any) -> dict[str, list[Any]]:
    """The columns that have one value a response ``[S]``, of those that are given.

    Raises:
        DataError: they are not of the batch's responses, or no rewards or groups.
    """
    count, found = len(_lengths(batch)), {}
    of_each = f"for each of the batch's {count} responses, those with no token left out"
    if rewards is not None:
        values = as_tensor("rewards", rewards)
        if values.shape != (count,):
            raise DataError(f"rewards must hold a number {of_each}, got {list(values.shape)}")
        found["reward"] = _shortest(values.detach().cpu())
    if groups is not None:
        listed = list(groups) if isinstance(groups, Sequence) else as_tensor("groups", groups).tolist()
        if isinstance(groups, str) or not isinstance(listed, list) or len(listed) != count:
            raise DataError(f"groups must hold a whole number or text {of_each}, got {shorten(repr(groups))}")
        found["group_id"] = [group if isinstance(group, str) else _index("a group", group) for group in listed]
    return found


def _index(name: str, value: Any) -> int:
    if not (is_count(value) or (value == 0 and type(value) is not bool)):
        raise DataError(f"{name} must be a whole number from 0, got {value!r}")
    return int(value)
