"""Runs of impossible tokens: text that was tokenized again, so that π is of other tokens than μ.

A token that was sampled is rarely one that π holds impossible (log r < −5), and if such tokens are independent, hardly
ever three in a row. Text that is decoded and tokenized again gives other tokens where the sampled ones were not the
tokenizer's own choice, and π finds a run of impossible ones there, while the tokens around it are right. A policy that
has moved far has impossible tokens as well, but many more tokens that are merely unlikely. If the log has updates, only
those of update 0 count.
"""

from __future__ import annotations

from collections.abc import Iterator

from drpo.inspection.measured import Measured
from drpo.inspection.readers.tokens import Flags
from drpo.inspection.result import Finding
from drpo.inspection.runs import in_runs, runs

#: log r of an impossible token, and |log r| of one that a moved policy has (nats).
IMPOSSIBLE, MOVED = -5.0, 1.0
#: Tokens of a run; fewest runs; share of the impossible tokens that stand in runs.
LONG, FEWEST_RUNS, IN_RUNS = 3, 5, 0.4
#: Tokens outside of runs with |log r| beyond MOVED, per token in a run, at most.
OTHERS = 1.0


class Retokenized:
    """Counts of impossible tokens, in runs and alone."""

    def __init__(self) -> None:
        self.tokens = self.impossible = self.moved = self.in_runs = self.runs = self.longest = 0
        self.sequences = 0
        self.where = ""

    def add(self, part: Measured) -> None:
        """Count one chunk."""
        fresh = part.fresh()
        impossible = _impossible(part)
        self.tokens += int(fresh.sum())
        self.impossible += int(impossible.sum())
        self.moved += int(((abs(part.log_ratio) > MOVED) & fresh).sum())
        first, lengths = runs(impossible, part.tokens.sequences)
        long = lengths >= LONG
        first, lengths = first[long], lengths[long]
        self.runs += len(first)
        self.in_runs += int(lengths.sum())
        self.sequences += len(set(part.tokens.sequences[first].tolist()))
        if len(first) and int(lengths.max()) > self.longest:
            at = int(lengths.argmax())
            self.longest = int(lengths[at])
            self.where = f"{part.tokens.source}, row {part.tokens.rows[first[at]]}"

    @staticmethod
    def pointed(part: Measured) -> Flags:
        """``[N]``: the impossible tokens that stand in runs."""
        return in_runs(_impossible(part), part.tokens.sequences, LONG)

    def found(self) -> Iterator[Finding]:
        """A fault if impossible tokens come in runs, in a log whose other tokens are right."""
        if self.runs < FEWEST_RUNS or self.in_runs < IN_RUNS * self.impossible:
            return
        if self.moved - self.in_runs > OTHERS * self.in_runs:
            return
        independent = self.tokens * (self.impossible / self.tokens) ** LONG
        yield Finding(
            "retokenized",
            "fault",
            f"π and μ are of different tokens in places: {self.runs:,} runs of tokens that π holds impossible",
            f"{self.in_runs:,} of {self.impossible:,} tokens with log π − log μ < {IMPOSSIBLE:g} nats stand in runs of "
            f"{LONG} or more, in {self.sequences:,} responses; if they were independent, {independent:.1g} such runs "
            f"would be expected. The longest has {self.longest} tokens ({self.where}). Of the other tokens, "
            f"{self.moved - self.in_runs:,} differ by more than {MOVED:g} nat.",
            "Train on the token ids that the engine returned. Do not decode a response and tokenize it again (chat "
            "templates, tool calls, several turns): the tokenizer may cut the same text in another way. vLLM and "
            "SGLang return token_ids with the text.",
        )


def _impossible(part: Measured) -> Flags:
    return (part.log_ratio < IMPOSSIBLE) & part.fresh()
