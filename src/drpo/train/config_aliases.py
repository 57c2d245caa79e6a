"""What other trainers call our settings: for suggestions alone, no alias is ever taken for the key it means."""

from __future__ import annotations

from drpo.errors import suggest

_RESPONSES = (
    "prompts_per_step (times group_size responses make a step); micro_batch_tokens bounds one forward pass, "
    "updates_per_step cuts the step into updates"
)
_LENGTH = "max_new_tokens (of a response; prompts are not cut)"
_DATA = (
    "task=jsonl task.path=FILE (prompt and answer, exact match) or task=math task.path=FILE; data sets by name: "
    "task=math task.dataset=NAME"
)
_OBJECTIVE = (
    "a parameter of an objective: `drpo objectives` lists them, for example objective=ppo "
    "objective.ratio_low=0.2, objective.delta=0.15, or objective=kl_penalty objective.coefficient=0.1"
)
_STEPS = "steps (a run is counted in rollout batches)"
_TEMPLATE = "chat_template_kwargs.enable_thinking"

#: Another name → where it is here. Letters in lower case, dashes as underscores.
ALIASES: dict[str, str] = {
    **dict.fromkeys(("lr", "learningrate", "actor_lr"), "learning_rate"),
    **dict.fromkeys(
        (
            "batch_size",
            "train_batch_size",
            "per_device_train_batch_size",
            "rollout_batch_size",
            "bs",
            "mini_batch_size",
            "ppo_mini_batch_size",
            "gradient_accumulation_steps",
        ),
        _RESPONSES,
    ),
    **dict.fromkeys(("micro_batch_size", "ppo_micro_batch_size"), "micro_batch_tokens"),
    **dict.fromkeys(
        (
            "epochs",
            "epoch",
            "num_epochs",
            "num_train_epochs",
            "total_epochs",
            "max_steps",
            "num_steps",
            "total_training_steps",
            "iterations",
        ),
        _STEPS,
    ),
    **dict.fromkeys(("ppo_epochs", "num_iterations", "updates"), "updates_per_step"),
    **dict.fromkeys(
        (
            "data",
            "dataset",
            "dataset_name",
            "train_data",
            "train_file",
            "train_files",
            "data_path",
            "path",
            "file",
            "prompts",
        ),
        _DATA,
    ),
    **dict.fromkeys(("n", "num_generations", "rollout_n", "num_samples", "samples", "g", "group"), "group_size"),
    **dict.fromkeys(
        (
            "max_tokens",
            "max_length",
            "max_completion_length",
            "max_response_length",
            "response_length",
            "max_seq_len",
            "max_prompt_length",
        ),
        _LENGTH,
    ),
    **dict.fromkeys(
        (
            "beta",
            "epsilon",
            "epsilon_high",
            "clip",
            "clip_ratio",
            "clip_range",
            "cliprange",
            "delta",
            "kl_coef",
            "kl_coeff",
        ),
        _OBJECTIVE,
    ),
    **dict.fromkeys(
        ("loss", "loss_type", "algorithm", "algo", "loss_fn"),
        "objective (the loss of a token) or aggregation (how token losses are summed)",
    ),
    **dict.fromkeys(("max_grad_norm", "grad_clip", "clip_grad"), "gradient_clip"),
    **dict.fromkeys(("warmup", "warmup_steps", "warmup_ratio"), "warmup_updates"),
    **dict.fromkeys(("model_name", "model_path", "model_name_or_path", "base_model", "pretrained"), "model"),
    **dict.fromkeys(("output_dir", "out", "output", "save_dir", "run_dir"), "the option --out DIR"),
    **dict.fromkeys(("save_steps", "save_every", "save_freq"), "checkpoint_every"),
    **dict.fromkeys(("save_total_limit", "keep_checkpoints", "max_checkpoints", "keep_last_n"), "checkpoint_keep"),
    **dict.fromkeys(
        ("save_best", "keep_best", "load_best_model_at_end"),
        "checkpoint_keep (of the newest; the best is always kept besides, for `drpo eval RUN --step best`)",
    ),
    **dict.fromkeys(("eval_steps", "test_freq", "eval_freq"), "eval_every"),
    **dict.fromkeys(("bf16", "fp16", "dtype", "torch_dtype", "mixed_precision"), "precision"),
    **dict.fromkeys(("vllm", "use_vllm", "engine"), "sampler=vllm"),
    **dict.fromkeys(("report_to", "logger", "wandb", "tensorboard"), "trackers, for example 'trackers=[wandb]'"),
    **dict.fromkeys(("use_lora", "peft", "lora_r", "lora_rank", "r"), "lora.rank"),
    "lora_alpha": "lora.alpha",
    **dict.fromkeys(("target_modules", "lora_target_modules"), "lora.targets"),
    **dict.fromkeys(("system", "system_message"), "system_prompt"),
    **dict.fromkeys(("enable_thinking", "thinking"), _TEMPLATE),
    **dict.fromkeys(("chat_template", "template"), "chat_template_kwargs.chat_template"),
    **dict.fromkeys(("prompt_column", "prompt_key", "input_key"), "task.prompt_column"),
    **dict.fromkeys(("answer_column", "answer_key", "label_key"), "task.answer_column"),
    **dict.fromkeys(("gpus", "gpu", "num_gpus"), "device (one device; several GPUs: see docs/integrations)"),
}


def unknown_key(key: str, known: list[str]) -> str:
    """The message for a setting that does not exist; ``known`` are those that do."""
    alias = ALIASES.get(key.lower().replace("-", "_"))
    if alias is not None and key not in known:
        return f"unknown key {key!r}. Here it is {alias}."
    return f"unknown key {key!r}.{suggest(key, known)}"
