"""What a run is told to do, and where each value came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from drpo.advantages import Kind
from drpo.aggregation import Mode
from drpo.errors import suggest
from drpo.model.lora_settings import Lora
from drpo.model.prompts import PromptSettings
from drpo.objectives import Objective, make_objective
from drpo.rollouts import SAMPLERS, Precision, SamplerOptions, SamplingParameters, make_sampler_options
from drpo.setting_types import STRICT, Count, CountOrZero
from drpo.trackers import TRACKERS

#: More threads than any machine has CPUs are a slip.
MOST_THREADS = 1024
#: The value of log_tokens that bounds the size of the log.
SAMPLE = "sample"
#: Keys whose value is a :class:`Section`.
SECTIONS = ("task", "objective", "sampler")


class Section(BaseModel):
    """Something chosen by ``name``; every other key is a parameter of what was chosen."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        """All keys but the name."""
        return dict(self.model_extra or {})


class EvaluationSize(BaseModel):
    """How many held-out problems are answered, and how often each."""

    model_config = STRICT

    examples: Count
    samples: Count


class TrainConfig(BaseModel):
    """Every setting of a run. The defaults are the demo: `drpo train` with no arguments."""

    model_config = STRICT

    model: str = Field(
        default="embedded:arithmetic",
        description="Hugging Face directory, name on the Hugging Face Hub (org/name or org/name@revision), or "
        "embedded:NAME",
    )
    trust_remote_code: bool = Field(
        default=False,
        description="run the Python files that come with the model, with your permissions",
    )
    task: Section = Section.model_validate(
        {"name": "reasoning_gym:chain_sum", "min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 1}
    )
    system_prompt: str | None = Field(
        default=None, min_length=1, description="a system turn before every prompt, in the tokenizer's chat template"
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default={},
        description="variables of the tokenizer's chat template, for example {enable_thinking: false}; chat_template "
        "names one of several templates",
    )
    objective: Section = Section(name="drpo")
    advantages: Kind = Field(default="group_mean", description="how rewards of a group become advantages")
    aggregation: Mode = Field(
        default="sequence_sum",
        description="token losses to a scalar; sequence_sum divides by max_new_tokens (the paper's choice)",
    )

    steps: Count = Field(default=60, description="rollout batches")
    seed: int = Field(default=0, ge=0, lt=2**64)
    prompts_per_step: Count = Field(default=16)
    group_size: int = Field(
        default=8, ge=2, lt=2**31, description="responses a prompt; advantages compare them, so at least 2"
    )
    updates_per_step: Count = Field(default=4, description="optimizer steps a rollout batch")

    learning_rate: float = Field(default=5e-5, gt=0)
    warmup_updates: CountOrZero = Field(default=0, description="updates over which the rate rises linearly")
    weight_decay: float = Field(default=0.01, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0, description="largest gradient norm")
    micro_batch_tokens: Count | None = Field(
        default=None,
        description="padded tokens in one forward pass; changes memory and speed, never the gradient; default: 1536 "
        "on a CPU, 16384 on a GPU",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="keep only each layer's input and recompute the layer in the backward pass: less memory, more "
        "time; responses then do not share their prompt's forward pass",
    )
    lora: Lora | None = Field(
        default=None, description="train only low-rank adapters, for example {rank: 16, alpha: 32}; needs peft"
    )

    precision: Precision = Field(
        default="fp32",
        description="what the trainer computes in: fp32; bf16; fp8 (e4m3 in the forward pass of linear layers, bf16 in "
        "the rest). The optimizer's weights are float32 in all of them (docs/precision.md)",
    )
    rollout_precision: Precision | None = Field(
        default=None,
        description="what the sampler computes in, for evaluation too: fp32, bf16 or fp8; default: as the trainer",
    )
    rollout_lag: CountOrZero = Field(
        default=0,
        description="sample from the weights of N steps ago; keeps N copies in memory",
    )

    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(
        default=1.0,
        description="in (0, 1]; sample only from the fewest most likely tokens that have this mass together "
        "(docs/truncated-sampling.md)",
    )
    top_k: int = Field(default=-1, description="sample only from the k most likely tokens; -1: from all")
    min_p: float = Field(
        default=0.0,
        description="in [0, 1); sample only from tokens that are at least this times as likely as the most likely one",
    )
    support_replay: bool = Field(
        default=True,
        description="renormalize π over the tokens that top_p, top_k and min_p kept, as μ is; false only to study what "
        "happens without",
    )
    max_new_tokens: Count = Field(default=64)

    sampler: Section = Field(
        default=Section(name="in_process"), description=f"{' or '.join(SAMPLERS)} (docs/sampling.md)"
    )

    router_replay: bool = Field(
        default=False,
        description="train a mixture of experts with the experts that the rollout chose for each token (R3)",
    )

    eval_every: CountOrZero = Field(default=20, description="steps between evaluations; 0: only before and after")
    eval_examples: Count = Field(default=256, description="held-out problems")
    eval_samples: Count = Field(default=2, description="responses to each")
    eval_final: EvaluationSize | None = Field(
        default=None,
        description="size of the evaluation after the last step, for example {examples: 1024, samples: 4}; default: as "
        "the others",
    )
    checkpoint_every: Count = Field(
        default=20, description="steps between checkpoints; the last step, and a new best accuracy, are always saved"
    )
    checkpoint_keep: Count = Field(
        default=2, description="checkpoints kept: the newest N, and the best by held-out accuracy besides them"
    )

    stop_on_collapse: bool = Field(
        default=False,
        description="stop with a checkpoint, and exit status 3, once held-out accuracy fell to half of its best and "
        "stays there (docs/resume.md)",
    )

    delta_shown: float | None = Field(
        default=None,
        gt=0,
        description="δ of the reported shares beyond δ; default: the objective's delta, or 0.15",
    )
    mismatch_limit: float | None = Field(
        default=None,
        gt=0,
        description="stop if the mean |log π − log μ| before any training exceeds this many nats; default: what "
        "rounding explains in the precisions of trainer and sampler (fp32 0.0002, bf16 0.05, fp8 0.1)",
    )
    log_tokens: bool | str = Field(
        default=SAMPLE,
        description="write tokens/step-NNNNNN.jsonl, for `drpo inspect`: sample (responses drawn at random, about 512 "
        "tokens a step), true (all) or false",
    )
    log_tokens_share: float = Field(
        default=1.0, gt=0, le=1, description="share of the responses that log_tokens=true keeps, drawn at random"
    )
    trackers: list[str] = Field(
        default=[], description="any of tensorboard, trackio, wandb; each gets every figure of metrics.jsonl"
    )
    project: str | None = Field(
        default=None, min_length=1, description="project of the run in trackio and wandb; default: drpo"
    )
    grading_time_limit: float = Field(default=10.0, gt=0, description="seconds for one reward")
    grading_workers: Count = Field(
        default=2, description="number of grading processes; one that hangs does not block the others"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:0, …")
    threads: int | str = Field(
        default="auto",
        description="CPU threads: a number, or auto (as many as CPUs are free at the start; a resumed run keeps it)",
    )

    @field_validator("task", "objective", "sampler", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("threads", mode="before")
    @classmethod
    def _auto_or_a_number(cls, value: Any) -> Any:
        if value == "auto" or (type(value) is int and 1 <= value <= MOST_THREADS):
            return value
        raise ValueError(f"must be auto or a whole number from 1 to {MOST_THREADS}")

    @field_validator("log_tokens", mode="before")
    @classmethod
    def _sample_or_a_switch(cls, value: Any) -> Any:
        if value == SAMPLE or type(value) is bool:
            return value
        raise ValueError(f"must be {SAMPLE}, true or false")

    @field_validator("trackers", mode="before")
    @classmethod
    def _one_alone(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("trackers")
    @classmethod
    def _known_once(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in TRACKERS:
                raise ValueError(f"unknown tracker {name!r}.{suggest(name, TRACKERS)}")
        if len(set(names)) < len(names):
            raise ValueError("a tracker is named twice")
        return names

    @model_validator(mode="after")
    def _together(self) -> TrainConfig:
        responses = self.prompts_per_step * self.group_size
        if self.updates_per_step > responses:
            raise ValueError(
                f"updates_per_step={self.updates_per_step} exceeds the {responses} responses of a step "
                "(prompts_per_step × group_size). Lower it or sample more."
            )
        if self.log_tokens_share < 1 and self.log_tokens is not True:
            raise ValueError(
                f"log_tokens_share={self.log_tokens_share} would be ignored: set log_tokens=true as well, "
                "or leave it out."
            )
        if self.project is not None and not {"trackio", "wandb"} & set(self.trackers):
            raise ValueError(
                f"project={self.project!r} would be ignored: it is for trackio and wandb, and trackers is "
                f"{self.trackers}. Add one of them, or leave project out."
            )
        if self.sampler.name == "vllm" and self.lora is not None:
            raise ValueError(
                "lora with sampler=vllm is not supported: vLLM is given whole weights, and only the "
                "in-process sampler runs adapters. Use sampler=in_process."
            )
        if self.sampler.name == "vllm" and self.trust_remote_code:
            raise ValueError(
                "trust_remote_code with sampler=vllm is not supported: vLLM is given weights, and no "
                "code. Use sampler=in_process."
            )
        if self.sampler.name == "vllm" and self.sampling_precision == "fp8":
            raise ValueError(
                "sampler=vllm samples in fp32 or bf16 here: set rollout_precision to one of them, or "
                "sampler=in_process for fp8."
            )
        self.make_objective()
        self.make_sampler_options()
        truncated = self.sampling().is_truncated
        if not self.support_replay and not truncated:
            raise ValueError(
                "support_replay=false would be ignored: nothing is truncated. Leave it out, or set top_p, top_k or "
                "min_p."
            )
        PromptSettings(self.system_prompt, self.chat_template_kwargs)
        return self

    def evaluation_size(self, step: int) -> EvaluationSize:
        """Of the evaluation after ``step``."""
        if self.eval_final is not None and step == self.steps:
            return self.eval_final
        return EvaluationSize(examples=self.eval_examples, samples=self.eval_samples)

    @property
    def most_examples(self) -> int:
        """Held-out problems of the largest evaluation."""
        return max(self.eval_examples, self.eval_final.examples if self.eval_final else 0)

    @property
    def sampling_precision(self) -> Precision:
        """What the sampler computes in."""
        return self.rollout_precision or self.precision

    @property
    def shares_model(self) -> bool:
        """Whether the sampler's model is, number for number, the one that is trained."""
        return self.sampling_precision == self.precision and self.rollout_lag == 0

    def make_objective(self) -> Objective:
        """The objective that ``objective`` names."""
        return make_objective(self.objective.name, **self.objective.parameters)

    def make_sampler_options(self) -> SamplerOptions:
        """The settings of the sampler that ``sampler`` names."""
        return make_sampler_options(self.sampler.name, **self.sampler.parameters)

    def sampling(self) -> SamplingParameters:
        """How training and evaluation sample; what a rollout reports besides is the rollout's."""
        return SamplingParameters(
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            report_support=False,
        )

    @property
    def prompt_settings(self) -> PromptSettings:
        """How prompts are put into the tokenizer's chat template."""
        return PromptSettings(self.system_prompt, self.chat_template_kwargs)

    @property
    def horizon(self) -> int | None:
        """What `aggregate` divides a sequence's sum by."""
        return self.max_new_tokens if self.aggregation == "sequence_sum" else None

    def resolved(self) -> dict[str, Any]:
        """Plain values, the defaults of objective and sampler written out; paths that exist are absolute, so that they
        hold wherever the run is resumed."""
        values = self.as_dict()
        values["model"] = _absolute(self.model)
        values["task"] = {
            key: _absolute(value) if key == "path" or key.endswith("_path") else value
            for key, value in values["task"].items()
        }
        values["objective"] = self.make_objective().settings()
        values["sampler"] = {"name": self.sampler.name, **self.make_sampler_options().model_dump()}
        return values

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as config.yaml holds them and :func:`drpo.train.config_layers.load_config` takes them."""
        return self.model_dump()


def _absolute(value: Any) -> Any:
    """``value`` itself unless it is the path of something that exists."""
    if not isinstance(value, str) or "\0" in value:
        return value
    try:
        path = Path(value).expanduser()
        return str(path.absolute()) if path.exists() else value
    except (OSError, RuntimeError):  # no file system takes such a name, or there is no such home directory
        return value
