"""What a TRL run is told about the objective, and which of TRL's own options it refuses."""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar

from trl import GRPOConfig  # pyright: ignore[reportAttributeAccessIssue]

from drpo.aggregation import MODES, Mode
from drpo.errors import ConfigError, suggest
from drpo.integrations.padded import make_host_objective, require_whole_update
from drpo.objectives import Objective

_CLIPPING = (
    "The objective's parameters are in objective_parameters, for example objective='grpo' with "
    "objective_parameters={'ratio_low': 0.2, 'ratio_high': 0.28}."
)
_CORRECTION = (
    "μ is the rollout's, so that the ratio π/μ holds this correction already. To bound π/π_old instead and "
    "correct the engines' mismatch separately: objective_parameters={'anchor': 'proximal', 'modifiers': "
    "['tis']} (or 'icepop', 'mis')."
)
_SAPO = "Use objective='sapo' with objective_parameters={'tau_positive': …, 'tau_negative': …}."
_VESPO = (
    "Use objective='vespo' with objective_parameters={'k_positive': …, 'lambda_positive': …, 'k_negative': …, "
    "'lambda_negative': …}."
)
_ADAPTIVE = "Only a constant entropy_coef is implemented here."
_TRUNCATED = (
    "It changes the distribution that is sampled from, μ, but not the trainer's π, so that r = π/μ would be "
    "wrong on every token. TRL does not hand over the tokens that a cut left (TRL #6789 asks for it), over which π "
    "could be renormalized, as `drpo train` and SkyRL's sample support replay do. Leave it neutral, and lower the "
    "temperature if samples are too random."
)

#: Option of TRL that DRPOTrainer's loss does not read, or that makes μ wrong → what to do instead.
REFUSED: dict[str, str] = {
    "loss_type": "The loss is chosen by objective and aggregation: 'dapo' and 'bnpo' are aggregation='token_mean', "
    "'grpo' is 'sequence_mean', 'dr_grpo' is 'sequence_sum'; there are objective='cispo', 'sapo', "
    "'vespo' (with 'token_mean') and 'luspo' (with 'sequence_mean').",
    "epsilon": _CLIPPING,
    "epsilon_high": _CLIPPING,
    "delta": "This is TRL's upper bound of the ratio (objective='grpo' with objective_parameters={'dual_clip': …} is "
    "close to it). The δ of DRPO is objective_parameters={'delta': 0.15}.",
    "importance_sampling_level": "For sequence-level ratios use objective='gspo' or 'gmpo'.",
    "sapo_temperature_neg": _SAPO,
    "sapo_temperature_pos": _SAPO,
    "vespo_k_pos": _VESPO,
    "vespo_lambda_pos": _VESPO,
    "vespo_k_neg": _VESPO,
    "vespo_lambda_neg": _VESPO,
    "off_policy_mask_threshold": "Use objective_parameters={'modifiers': [{'name': 'opsm', 'kl_max': …}]}.",
    "top_entropy_quantile": "Use objective_parameters={'modifiers': [{'name': 'entropy_top', 'fraction': …}]}.",
    "use_adaptive_entropy": _ADAPTIVE,
    "entropy_coef_min": _ADAPTIVE,
    "entropy_coef_max": _ADAPTIVE,
    "entropy_coef_delta": _ADAPTIVE,
    "entropy_target": _ADAPTIVE,
    "vllm_importance_sampling_correction": _CORRECTION,
    "vllm_importance_sampling_mode": _CORRECTION,
    "vllm_importance_sampling_cap": _CORRECTION,
    "vllm_importance_sampling_clip_max": _CORRECTION,
    "vllm_importance_sampling_clip_min": _CORRECTION,
    "top_p": _TRUNCATED,
    "top_k": _TRUNCATED,
    "min_p": _TRUNCATED,
    "repetition_penalty": _TRUNCATED,
    "vllm_structured_outputs_regex": _TRUNCATED,
}
#: Other ways to say the neutral value.
NEUTRAL: dict[str, tuple[Any, ...]] = {"top_k": (-1, None), "min_p": (0.0,)}
#: Keys of generation_kwargs that leave the distribution of a token as it is.
HARMLESS_GENERATION = frozenset({"seed", "stop", "stop_token_ids", "stop_strings", "ignore_eos", "detokenize"})


@dataclass
class ObjectiveOptions:
    """The objective, as fields of a configuration of TRL's, which is the next class it inherits from."""

    #: What reads the configuration, and the optional fields of a batch that its loss can be given.
    trainer: ClassVar[str]
    gives: ClassVar[tuple[str, ...]]

    objective: str = field(default="drpo", metadata={"help": "Name of the objective; `drpo objectives` lists them."})
    objective_parameters: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Parameters of the objective, anchor and modifiers among them; as JSON on a command line, "
            "for example '{\"delta\": 0.2}'."
        },
    )
    aggregation: Mode = field(
        default="sequence_sum",
        metadata={
            "help": "Token losses to a scalar: 'token_mean', 'sequence_mean', or 'sequence_sum', which divides "
            "a response's sum by max_completion_length."
        },
    )
    mismatch_limit: float = field(
        default=0.1,
        metadata={
            "help": "Stop if the mean |log π − log μ| at the first loss, before any training, exceeds this many nats."
        },
    )
    log_tokens: bool = field(
        default=False,
        metadata={"help": "Write output_dir/tokens/step-NNNNNN.jsonl for `drpo inspect`, from the main process."},
    )
    log_tokens_limit: int = field(
        default=8192,
        metadata={
            "help": "With log_tokens: no response is added to an optimizer step's file that has this many tokens."
        },
    )

    def __post_init__(self) -> None:
        self.objective_parameters = _as_mapping(self.objective_parameters)
        problems = [*self._refused(), *self._out_of_range()]
        if problems:
            raise ConfigError("\n".join(problems))
        super().__post_init__()  # pyright: ignore[reportAttributeAccessIssue]
        options: Any = self
        require_whole_update(
            self.make_objective(),
            options.gradient_accumulation_steps == 1 and options.world_size == 1,
            "TRL",
            "Set gradient_accumulation_steps=1 with per_device_train_batch_size as large as the update, on one "
            "process; or use another objective.",
        )

    def make_objective(self) -> Objective:
        """The objective that the configuration names."""
        parameters = self.objective_parameters
        assert not isinstance(parameters, str)
        return make_host_objective("TRL", self.objective, parameters, gives=self.gives)

    @property
    def horizon(self) -> int | None:
        """What a sequence's sum is divided by."""
        options: Any = self
        return options.max_completion_length if self.aggregation == "sequence_sum" else None

    def _refused(self) -> list[str]:
        default = {f.name: f.default for f in fields(type(self))}
        problems = []
        for name, instead in REFUSED.items():
            value = getattr(self, name, default.get(name))
            if name in default and value != default[name] and value not in NEUTRAL.get(name, ()):
                problems.append(
                    f"{name}={value!r} is not used by {self.trainer}. {instead} Leave {name} out "
                    f"(default {default[name]!r})."
                )
        given = _as_mapping(getattr(self, "generation_kwargs", None), "generation_kwargs") or {}
        for name in sorted(set(given) - HARMLESS_GENERATION):
            problems.append(
                f"generation_kwargs: {name!r} may change how a token is drawn. {_TRUNCATED} Allowed: "
                f"{', '.join(sorted(HARMLESS_GENERATION))}."
            )
        return problems

    def _out_of_range(self) -> list[str]:
        problems = []
        options: Any = self
        if self.aggregation not in MODES:
            problems.append(f"unknown aggregation {self.aggregation!r}.{suggest(str(self.aggregation), MODES)}")
        if not self.mismatch_limit > 0:
            problems.append(f"mismatch_limit must be > 0 nats, got {self.mismatch_limit!r}")
        if not self.log_tokens_limit > 0:
            problems.append(f"log_tokens_limit must be > 0 tokens, got {self.log_tokens_limit!r}")
        if self.aggregation == "sequence_sum" and not options.max_completion_length:
            problems.append(
                "aggregation='sequence_sum' divides by max_completion_length, which is not set. Set it, or "
                "use another aggregation."
            )
        return problems


@dataclass
class DRPOConfig(ObjectiveOptions, GRPOConfig):
    """GRPOConfig with the objective. Options that DRPOTrainer would ignore are errors, all in one message.

    Raises:
        ConfigError: an unknown objective, parameter or aggregation; an objective that TRL cannot feed; an option of
            TRL's own losses.
    """

    trainer: ClassVar[str] = "DRPOTrainer"
    gives: ClassVar[tuple[str, ...]] = ("proximal_logprobs", "entropy")

    # A value that TRL's own loss rejects: should it ever run instead of ours, it stops.
    loss_type: str = field(default="drpo", metadata={"help": "Not used: see objective and aggregation."})
    vllm_importance_sampling_correction: bool = field(
        default=False, metadata={"help": "Must stay off: the ratio of every objective is π/μ already."}
    )

    @classmethod
    def from_grpo(cls, config: GRPOConfig, **changes: Any) -> DRPOConfig:
        """The settings of a GRPOConfig that another program has made, with ``changes``: the objective's fields.

        Raises:
            ConfigError: as for the class; what ``config`` leaves at TRL's default is not refused.
        """
        made = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(GRPOConfig)}
        ours = {f.name for f in fields(cls) if f.init}
        # TRL derives the size of a rollout batch from steps_per_generation, and refuses both.
        given = {
            name: value
            for name, default in made.items()
            if name in ours and name != "generation_batch_size" and (value := getattr(config, name)) != default
        }
        return cls(**{**given, **changes})


def _as_mapping(value: Any, name: str = "objective_parameters") -> dict[str, Any] | None:
    if value is None or isinstance(value, dict):
        return value
    try:
        parsed = json.loads(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} must be a mapping, or one written as JSON such as '{{\"delta\": 0.2}}', got {value!r} ({error})"
        ) from error
    if not isinstance(parsed, dict):
        raise ConfigError(
            f"{name} must be a mapping, or one written as JSON such as '{{\"delta\": 0.2}}', got {value!r}"
        )
    return parsed
