"""What the trainers share: the batch under the current weights, its metrics, its token log, and the check at the start.

Shapes: ``N`` kept tokens.
"""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from drpo.batch import TokenBatch
from drpo.errors import DataError, MismatchError
from drpo.integrations.padded import PREFIX
from drpo.integrations.trl.metrics import RunningMetrics
from drpo.integrations.trl.tokens import TrainerTokens
from drpo.metrics import Metric
from drpo.objectives import Objective

logger = logging.getLogger(__name__)

#: What TRL writes into the model card of a trained model.
PAPER = {
    "title": "Rethinking the Divergence Regularization in LLM RL",
    "id": "2606.09821",
    "citation": textwrap.dedent("""\
        @misc{yao2026rethinking,
            title         = {{Rethinking the Divergence Regularization in LLM RL}},
            author        = {Yao and Zhou and Qi and Lee and Bo and Pang},
            year          = 2026,
            eprint        = {2606.09821},
            archivePrefix = {arXiv},
        }"""),
}


class MeasuredLoss:
    """Beside a trainer of TRL's: what its loss measures, and what stops a run before any training.

    A trainer calls :meth:`start_measuring` once it is made.
    """

    args: Any
    accelerator: Any
    state: Any
    temperature: float
    objective: Objective
    mu_source: str
    loss_path: str
    _metrics: Any

    def start_measuring(self, tokenizer: Any) -> None:
        """Nothing is measured yet; ``tokenizer`` gives the texts of the token log."""
        self._running = {mode: RunningMetrics() for mode in ("train", "eval")}
        self._checked = False
        self._token_log = None
        if self.args.log_tokens and self.accelerator.is_main_process:
            self._token_log = TrainerTokens(self.args.output_dir, tokenizer, self.args.log_tokens_limit)

    def under_weights(self, given: TokenBatch, host_names: str, **values: Any) -> TokenBatch:
        """``given`` with the ``values`` of the current weights, checked; ``host_names`` says what TRL calls μ."""
        try:
            return replace(given, **values)
        except DataError as error:
            raise DataError(
                f"{error} ({host_names}, from {self.mu_source}; NaN stands for a token that vLLM gave no "
                "log-probability)"
            ) from error

    def merge(self, measured: Mapping[str, Metric], mode: str) -> tuple[float, float]:
        """Merge ``measured`` over processes and since the last log; check the first.

        Returns:
            Mean and maximum of |log π − log μ|, nats.
        """
        here = self._running[mode].add(measured, self.accelerator, self._metrics[mode])
        mean, most = (here[PREFIX + name].item() for name in ("mismatch", "mismatch_max"))
        if not self._checked and here[PREFIX + "mismatch"].count:
            self._check_mismatch(mean, most, mode)
        return mean, most

    def _check_mismatch(self, mean: float, most: float, mode: str) -> None:
        """Before the first update π and μ share their weights, so |log π − log μ| is the engines' noise.

        Raises:
            MismatchError: its mean exceeds ``mismatch_limit``.
        """
        self._checked = True
        if not mean <= self.args.mismatch_limit:
            raise MismatchError(
                f"at the first loss, before any training, |log π − log μ| is {mean:.3g} nats on average (at most "
                f"{most:.3g}), above mismatch_limit={self.args.mismatch_limit}. μ is from {self.mu_source}. Both sides "
                f"should use temperature {self.temperature:g} and the same weights. Likely causes: log-probabilities "
                "before temperature scaling (start a vLLM server with --logprobs-mode processed_logprobs), another "
                "temperature or a top-p/top-k cut, older weights in the engine, tokens that are not the sampled ones, "
                "or dropout (disable_dropout=True). Raise mismatch_limit only if you expect this much."
            )
        statement = {
            PREFIX + "mu_source": self.mu_source,
            PREFIX + "loss_path": self.loss_path,
            PREFIX + "start_mismatch": mean,
            PREFIX + "start_mismatch_max": most,
        }
        logger.info("%s", statement)
        self.state.log_history.append({"step": self.state.global_step, **statement})
        for name in ("start_mismatch", "start_mismatch_max"):
            self._metrics[mode][PREFIX + name] = [statement[PREFIX + name]]
