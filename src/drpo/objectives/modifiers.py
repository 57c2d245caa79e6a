"""Per-token constant factors on an objective's loss: corrections, rejections and selections."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from drpo.batch import TokenBatch
from drpo.checks import is_number, is_positive
from drpo.divergence import at_least_float32, log_ratio
from drpo.objectives.base import Objective, from_parameters, require, sequence_mean, sequence_sum

LEVELS = ("token", "sequence", "geometric")


@dataclass(frozen=True, kw_only=True)
class Modifier:
    """What changes an objective's per-token loss: for most a factor ``[N]``, constant for the gradient.

    A subclass sets ``name`` (its registry key), writes :meth:`factor` (or :meth:`applied`, where it is no factor), and
    lists in ``needs`` the optional :class:`TokenBatch` fields it reads. ``token_local`` and ``sequence_local`` are as
    an objective's.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    token_local: ClassVar[bool] = True
    sequence_local: ClassVar[bool] = True

    @property
    def corrects(self) -> bool:
        """Whether the factor stands for π_old/μ, so that an objective whose ratio is π/μ has it already."""
        return False

    @property
    def topk(self) -> int:
        """How many of the most likely tokens it reads from a batch's top-K fields."""
        return 0

    def check(self, objective: Objective, anchor: str) -> None:
        """That it is defined on ``objective`` with that anchor.

        Raises:
            ConfigError: it is not.
        """

    def factor(self, batch: TokenBatch) -> torch.Tensor:
        """``[N]``, in float32 at least."""
        raise NotImplementedError(f"{type(self).__name__} does not define factor()")

    def applied(self, loss: torch.Tensor, objective: Objective, batch: TokenBatch) -> torch.Tensor:
        """``[N]``: the modified ``loss`` ``[N]`` of ``objective``."""
        factor = self.factor(batch)
        # Not 0 · loss: a dropped token must be dropped whatever its loss.
        return torch.where(factor == 0, 0.0, loss * factor)

    def settings(self) -> dict[str, Any]:
        """Name and parameters."""
        return {"name": self.name, **dataclasses.asdict(self)}


@dataclass(frozen=True, kw_only=True)
class TIS(Modifier):
    """Truncated importance sampling: correct the engines' mismatch, up to a cap.

    Equation: factor = min(π_old/μ, ratio_cap).
    Source: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training" (a blog post).
    Status: secondary, from verl-project/verl@1dda039, verl/trainer/ppo/rollout_corr_helper.py,
    compute_rollout_correction_weights, and THUDM/slime@624b824, slime/backends/megatron_utils/loss.py,
    vanilla_tis_function, which agree.
    Anchor: proximal. On one that is μ the correction would be made twice.
    Parameters:
        ratio_cap: the largest factor, a ratio, > 0.
    Deviations: none known.
    """

    name: ClassVar[str] = "tis"
    needs: ClassVar[tuple[str, ...]] = ("proximal_logprobs",)

    ratio_cap: float = 2.0

    def __post_init__(self) -> None:
        require(is_positive(self.ratio_cap), self, "ratio_cap", "a finite ratio > 0")

    @property
    def corrects(self) -> bool:
        return True

    def factor(self, batch: TokenBatch) -> torch.Tensor:
        return mismatch(batch).exp().clamp(max=self.ratio_cap)


@dataclass(frozen=True, kw_only=True)
class IcePop(Modifier):
    """Correct the engines' mismatch where it is small, and drop the token where it is not.

    Equation: factor = k where low ≤ k ≤ high, else 0, with k = π_old/μ.
    Source: Ling team, arXiv:2510.18855 (Ring-1T), the masking function M of IcePop.
    Status: verified against the paper, Eq. 1–2; the interval Section 2.3.4.
    Anchor: proximal. On one that is μ the correction would be made twice.
    Parameters:
        low: smallest k that is kept, a ratio, ≥ 0.
        high: largest k that is kept, a ratio, > low.
    Deviations: none known; the source's interval, 0.5 to 5, is the default.
    """

    name: ClassVar[str] = "icepop"
    needs: ClassVar[tuple[str, ...]] = ("proximal_logprobs",)

    low: float = 0.5
    high: float = 5.0

    def __post_init__(self) -> None:
        require_interval(self)

    @property
    def corrects(self) -> bool:
        return True

    def factor(self, batch: TokenBatch) -> torch.Tensor:
        k = mismatch(batch).exp()
        return torch.where((k >= self.low) & (k <= self.high), k, 0.0)


@dataclass(frozen=True, kw_only=True)
class MIS(Modifier):
    """Masked importance sampling: reject what the engines disagree on, token by token or response by response.

    Equation: with k_t = π_old/μ: level "token": factor = k_t if low ≤ k_t ≤ high, else 0 (IcePop's).
    "sequence": K = Π_t k_t instead of k_t. "geometric": 1 if low ≤ K^(1/T) ≤ high, else 0: a rejection without a
    weight.
    Source: Liu, Li et al. 2025, "When speed kills stability" (a blog post); the levels as in verl's rollout correction.
    Status: verified against verl-project/verl@1dda039, verl/trainer/ppo/rollout_corr_helper.py,
    compute_rollout_correction_weights and compute_rollout_rejection_mask, into which its authors merged it.
    Anchor: proximal; "geometric" weighs nothing and goes with either.
    Parameters:
        level: token, sequence or geometric.
        low: smallest value that is kept, a ratio, ≥ 0.
        high: largest value that is kept, a ratio, > low.
    Deviations: verl takes what "geometric" rejects out of the denominator, here it stays in. The source's bounds depend
    on the level: the default here suits the token and the sequence, while a geometric mean wants about 0.99 to 1.01.
    """

    name: ClassVar[str] = "mis"
    needs: ClassVar[tuple[str, ...]] = ("proximal_logprobs",)
    token_local: ClassVar[bool] = from_parameters(lambda self: self.level == "token")

    level: str = "token"
    low: float = 0.5
    high: float = 2.0

    def __post_init__(self) -> None:
        require(isinstance(self.level, str) and self.level in LEVELS, self, "level", f"one of {', '.join(LEVELS)}")
        require_interval(self)

    @property
    def corrects(self) -> bool:
        return self.level != "geometric"

    def factor(self, batch: TokenBatch) -> torch.Tensor:
        k = mismatch(batch)
        if self.level == "sequence":
            # Saturated, as a token's is: a product over a long response leaves float32 otherwise.
            k = log_ratio(sequence_sum(k, batch), torch.zeros_like(k))
        elif self.level == "geometric":
            k = sequence_mean(k, batch)
        k = k.exp()
        inside = (k >= self.low) & (k <= self.high)
        return torch.where(inside, torch.ones_like(k) if self.level == "geometric" else k, 0.0)


@dataclass(frozen=True, kw_only=True)
class OPSM(Modifier):
    """Off-policy sequence masking: drop bad responses that the policy has already moved away from.

    Equation: factor = 0 where Â < 0 and mean_t log(μ/π) > kl_max over the sequence, else 1.
    Source: DeepSeek-V3.2, arXiv:2512.02556 (off-policy sequence masking).
    Status: verified against the paper, Section 3.1, Eq. 8–9.
    Anchor: either.
    Parameters:
        kl_max: bound on the mean of log μ − log π, nats, > 0.
    Deviations: the source does not publish its bound; the default is ours.
    """

    name: ClassVar[str] = "opsm"
    token_local: ClassVar[bool] = False

    kl_max: float = 0.05

    def __post_init__(self) -> None:
        require(is_positive(self.kl_max), self, "kl_max", "a finite number of nats > 0")

    def factor(self, batch: TokenBatch) -> torch.Tensor:
        left = sequence_mean(-log_ratio(batch.logprobs.detach(), batch.behavior_logprobs), batch)
        return 1.0 - ((batch.advantages < 0) & (left > self.kl_max)).to(left)


@dataclass(frozen=True, kw_only=True)
class EntropyTop(Modifier):
    """Train on the tokens at which the policy is undecided.

    Equation: factor = 1 for the fraction of the update's tokens that has the highest entropy, else 0.
    Source: Wang et al., arXiv:2506.01939.
    Status: secondary, from TRL 1.16.0, grpo_trainer.py, get_high_entropy_mask.
    Anchor: either.
    Parameters:
        fraction: share of tokens that is kept, in (0, 1].
    Deviations: tokens as uncertain as the last one kept are kept too. The denominator of the aggregation is unchanged:
    it counts the dropped tokens.
    """

    name: ClassVar[str] = "entropy_top"
    needs: ClassVar[tuple[str, ...]] = ("entropy",)
    token_local: ClassVar[bool] = False
    sequence_local: ClassVar[bool] = False

    fraction: float = 0.2

    def __post_init__(self) -> None:
        require(is_number(self.fraction) and 0 < self.fraction <= 1, self, "fraction", "a share in (0, 1]")

    def factor(self, batch: TokenBatch) -> torch.Tensor:
        assert batch.entropy is not None
        entropy = at_least_float32(batch.entropy)
        if not len(entropy):
            return entropy
        count = max(1, round(self.fraction * len(entropy)))
        return (entropy >= entropy.topk(count).values[-1]).to(entropy)


def mismatch(batch: TokenBatch) -> torch.Tensor:
    """``[N]``: log π_old − log μ, saturated as a log-ratio is."""
    assert batch.proximal_logprobs is not None
    return log_ratio(batch.proximal_logprobs, batch.behavior_logprobs)


def require_interval(modifier: IcePop | MIS) -> None:
    """0 ≤ low < high."""
    low, high = modifier.low, modifier.high
    require(is_number(low) and low >= 0, modifier, "low", "a finite ratio ≥ 0")
    require(is_number(high) and high > low, modifier, "high", f"a finite ratio > low = {low:g}")
