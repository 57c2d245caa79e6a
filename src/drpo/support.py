"""The tokens that a token was sampled from, where top-p, top-k or min-p kept a part of the vocabulary.

Truncated sampling draws from μ renormalized over a set S, so that the policy must be renormalized over the same S:
log π_S(a) = z_a − log Σ_{v ∈ S} exp z_v, with z the logits divided by the temperature. The ratio π_S/μ_S is then one
of two distributions over one set.

Shapes: ``N`` tokens, ``V`` vocabulary, ``M`` ids of all supports together.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from drpo.checks import is_readable
from drpo.errors import DataError

#: log-probability of a token outside its support, where one is needed that is finite: its exponential is 0 in every
#: floating-point type.
OUTSIDE = -1e4
#: Bits of a word of :meth:`Support.bitmask`.
WORD = 32


@dataclass(frozen=True, slots=True, eq=False)
class Support:
    """For each of ``N`` tokens the ids that it was sampled from: sorted, in one tensor.

    An id takes four bytes; a support of 5,000 ids costs what a bit for each of 160,000 tokens would.

    Args:
        ids: ``[M]`` int32, the ids of the first token's support in ascending order, then those of the second, …
        offsets: ``[N + 1]`` int64 on the CPU, where each begins: 0, …, M; no support is empty.

    Raises:
        DataError: shapes, dtypes or order are others.
    """

    ids: torch.Tensor
    offsets: torch.Tensor

    def __post_init__(self) -> None:
        if self.ids.dim() != 1 or self.ids.dtype != torch.int32:
            raise DataError(f"support: ids must be int32 [M], got {self.ids.dtype} {list(self.ids.shape)}")
        if self.offsets.dim() != 1 or self.offsets.dtype != torch.int64 or self.offsets.device.type != "cpu":
            raise DataError(f"support: offsets must be int64 [N + 1] on the CPU, got {self.offsets.dtype}")
        ends = [int(self.offsets[0]), int(self.offsets[-1])] if len(self.offsets) else []
        if ends != [0, len(self.ids)] or bool((self.offsets.diff() < 1).any()):
            raise DataError(
                f"support: offsets must rise from 0 to M = {len(self.ids)}, by at least 1 a token: the sampled token "
                "is always in its support"
            )
        if is_readable(self.ids) and len(self.ids):
            rises = self.ids.diff() > 0
            rises[self.offsets[1:-1] - 1] = True
            if int(self.ids.min()) < 0 or not bool(rises.all()):
                raise DataError(
                    "support: the ids of each token must be ≥ 0, ascending and different; Support.from_rows sorts them"
                )

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Support:
        """Of one list of ids for each token, in any order.

        Raises:
            DataError: a list is empty, or an id is negative or no integer.
        """
        sizes = np.array([len(row) for row in rows], dtype=np.int64)
        if (sizes == 0).any():
            first = int((sizes == 0).argmax())
            raise DataError(
                f"support: {int((sizes == 0).sum())} of {len(rows)} tokens have none, the first at index {first}. A "
                "token that was sampled without truncation has the whole vocabulary; leave out the support where all "
                "tokens were."
            )
        flat = np.concatenate([np.asarray(row) for row in rows]) if rows else np.zeros(0, dtype=np.int64)
        if flat.dtype.kind not in "iu" or (len(flat) and (flat.min() < 0 or flat.max() >= 2**31)):
            raise DataError(f"support: ids must be integers in [0, 2^31), got {flat.dtype} from {flat.min()}")
        keys = np.unique(np.repeat(np.arange(len(rows), dtype=np.int64), sizes) << 32 | flat.astype(np.int64))
        offsets = np.searchsorted(keys, np.arange(len(rows) + 1, dtype=np.int64) << 32)
        ids = (keys & 0xFFFFFFFF).astype(np.int32)
        return cls(torch.from_numpy(ids).to(device), torch.from_numpy(offsets.astype(np.int64)))

    @classmethod
    def from_mask(cls, mask: torch.Tensor) -> Support:
        """Of a mask ``[N, V]`` bool that is true inside (waits for a device).

        Raises:
            DataError: another dtype or shape, or a row that keeps nothing.
        """
        if mask.dtype != torch.bool or mask.dim() != 2:
            raise DataError(f"support: the mask must be bool [N, V], got {mask.dtype} {list(mask.shape)}")
        offsets = torch.zeros(len(mask) + 1, dtype=torch.int64)
        offsets[1:] = mask.sum(1).cumsum(0).cpu()
        return cls(mask.nonzero()[:, 1].to(torch.int32), offsets)

    @classmethod
    def concatenate(cls, parts: Sequence[Support]) -> Support:
        """The tokens of all ``parts`` in order."""
        sizes = torch.cat([part.sizes for part in parts])
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
        return cls(torch.cat([part.ids for part in parts]), offsets)

    def __len__(self) -> int:
        """The number of tokens, N."""
        return len(self.offsets) - 1

    @property
    def sizes(self) -> torch.Tensor:
        """``[N]`` int64 on the CPU: the number of ids of each token."""
        return self.offsets.diff()

    @property
    def rows(self) -> torch.Tensor:
        """``[M]`` int64: the token that each id belongs to."""
        counts = self.sizes.to(self.ids.device)
        tokens = torch.arange(len(self), device=self.ids.device)
        return tokens.repeat_interleave(counts, output_size=len(self.ids))

    def __getitem__(self, keep: torch.Tensor | slice) -> Support:
        """The supports of the tokens where the boolean (or index) tensor, or the slice, ``keep`` says so."""
        if isinstance(keep, slice) and keep.step in (None, 1):
            start, stop, _ = keep.indices(len(self))
            offsets = self.offsets[start : max(start, stop) + 1]
            return Support(self.ids[offsets[0] : offsets[-1]], offsets - offsets[0])
        kept = torch.arange(len(self))[keep.cpu() if isinstance(keep, torch.Tensor) else keep]
        sizes = self.sizes[kept]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
        within = torch.arange(int(offsets[-1])) - offsets[:-1].repeat_interleave(sizes)
        places = self.offsets[:-1][kept].repeat_interleave(sizes) + within
        return Support(self.ids[places.to(self.ids.device)], offsets)

    def to(self, device: torch.device | str) -> Support:
        """The same with its ids on ``device``."""
        return Support(self.ids.to(device), self.offsets)

    def tolists(self) -> list[list[int]]:
        """One list of ids a token."""
        ids = self.ids.tolist()
        edges = self.offsets.tolist()
        return [ids[start:stop] for start, stop in pairwise(edges)]

    def packed(self) -> str:
        """The ids as text, for records: the difference of each to the one before it in its support (the first: the id
        itself), int32 in little-endian order, deflated, in base64. One to two bytes an id."""
        ids = self.ids.cpu().numpy().astype("<i4")
        gaps = np.diff(ids, prepend=ids[:1] * 0)
        first = self.offsets[:-1].numpy()
        gaps[first] = ids[first]
        return base64.b64encode(zlib.compress(gaps.astype("<i4").tobytes(), 6)).decode("ascii")

    @classmethod
    def from_packed(cls, sizes: Sequence[int], text: str) -> Support:
        """What :meth:`packed` wrote of tokens with so many ids each.

        Raises:
            DataError: the text is not what it wrote, or of another number of ids.
        """
        offsets = np.concatenate([[0], np.cumsum(np.asarray(sizes, dtype=np.int64))]).astype(np.int64)
        try:
            gaps = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype="<i4").astype(np.int64)
        except (ValueError, zlib.error) as error:
            raise DataError(f"support: the ids cannot be unpacked ({error}); write them with Support.packed") from error
        if len(gaps) != offsets[-1]:
            raise DataError(f"support: {len(gaps)} ids are packed, and the sizes add up to {offsets[-1]}")
        running = np.concatenate([[0], np.cumsum(gaps)])
        ids = running[1:] - np.repeat(running[offsets[:-1]], np.diff(offsets))
        return cls(torch.from_numpy(ids.astype(np.int32)), torch.from_numpy(offsets))

    def contains(self, targets: torch.Tensor) -> torch.Tensor:
        """``[N]`` bool: whether each of ``targets`` ``[N]`` is in its support; nothing of ``M`` numbers is made."""
        if not len(self):
            return torch.zeros(0, dtype=torch.bool, device=self.ids.device)
        edges = self.offsets.to(self.ids.device)
        # Invariant: the first id that is no smaller than the target is at low, or the last place of the row is.
        low, high = edges[:-1].clone(), edges[1:] - 1
        for _ in range(len(self.ids).bit_length()):
            middle = (low + high) // 2
            smaller = self.ids[middle] < targets
            low = torch.where(smaller, torch.minimum(middle + 1, high), low)
            high = torch.where(smaller, high, middle)
        return self.ids[low] == targets

    def check(self, targets: torch.Tensor, vocabulary: int) -> None:
        """That each of ``targets`` ``[N]`` is in its support, and all ids in a vocabulary of ``vocabulary`` tokens.

        On an accelerator, where that would wait for the device, what is wrong is a device-side assertion.

        Raises:
            DataError: it is not; the message names the likely causes.
        """
        if len(self) != len(targets) or self.ids.device != targets.device:
            raise DataError(
                f"support must be that of N = {len(targets)} tokens on {targets.device}, got {len(self)} on "
                f"{self.ids.device}"
            )
        inside = self.contains(targets)
        if not is_readable(targets):
            wrong = ~((self.ids.amax() < vocabulary) & inside.all()) if len(self) else inside.any()
            inside.new_zeros(1).gather(0, wrong.long().unsqueeze(0))  # an index of 1 is the assertion
            return
        if len(self.ids) and (largest := int(self.ids.max())) >= vocabulary:
            raise DataError(
                f"support: an id is {largest}, and the vocabulary has {vocabulary} tokens. It belongs to another "
                "tokenizer or LM head."
            )
        if not bool(inside.all()):
            outside = (~inside).nonzero().flatten()
            first = int(outside[0])
            raise DataError(
                f"{len(outside)} of {len(targets)} sampled tokens are outside their support, the first at index "
                f"{first}: token {int(targets[first])}, whose support has {int(self.sizes[first])} ids. It was "
                "recorded at another temperature, top-p, top-k or min-p, with another vocabulary, or for another "
                "position (shifted by one). Record the set that the sampler itself drew from."
            )

    def _places(self, values: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """Stretches of the ids, and where they are in ``values`` ``[N, V]`` laid flat, int64. A stretch has the ids of
        a few tokens, so that its places take a 64th of the room of ``values``, or a megabyte."""
        limit, first = max(values.numel() >> 8, 1 << 17), 0
        sizes = self.sizes.to(self.ids.device)
        while first < len(self):
            last = max(int(torch.searchsorted(self.offsets, self.offsets[first] + limit, right=True)) - 1, first + 1)
            part = slice(int(self.offsets[first]), int(self.offsets[last]))
            rows = torch.arange(first, last, device=self.ids.device)
            rows = rows.repeat_interleave(sizes[first:last], output_size=part.stop - part.start)
            yield part, rows.mul_(values.shape[1]).add_(self.ids[part])
            first = last

    def take(self, values: torch.Tensor) -> torch.Tensor:
        """``[M]``: what ``values`` ``[N, V]``, contiguous, holds at each id."""
        found = values.new_empty(len(self.ids))
        for part, places in self._places(values):
            found[part] = values.view(-1)[places]
        return found

    def put_(self, values: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """``values`` ``[N, V]``, contiguous, with ``inside`` ``[M]`` at the ids, in their place."""
        for part, places in self._places(values):
            values.view(-1)[places] = inside[part]
        return values

    def restrict_(self, logits: torch.Tensor) -> torch.Tensor:
        """``logits`` ``[N, V]``, contiguous, with −inf outside the support, in their place."""
        kept = self.take(logits)
        return self.put_(logits.fill_(-torch.inf), kept)

    def mask(self, vocabulary: int) -> torch.Tensor:
        """``[N, V]`` bool, true inside."""
        found = torch.zeros(len(self), vocabulary, dtype=torch.bool, device=self.ids.device)
        found[self.rows, self.ids.long()] = True
        return found

    def bitmask(self, vocabulary: int) -> torch.Tensor:
        """``[N, ⌈V / 32⌉]`` int32: bit v % 32 of word v // 32 is set where id v is inside."""
        words = -(-vocabulary // WORD)
        found = torch.zeros(len(self) * words, dtype=torch.int32, device=self.ids.device)
        bits = torch.bitwise_left_shift(torch.ones_like(self.ids), self.ids % WORD)
        return found.index_add_(0, self.rows.mul_(words).add_(self.ids // WORD), bits).view(len(self), words)
