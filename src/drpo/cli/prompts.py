"""The prompts that a run would get, on the terminal."""

from __future__ import annotations

from drpo.cli.printing import PlainConsole
from drpo.errors import DrpoError
from drpo.model.loading import load_model_config, load_tokenizer
from drpo.model.prompts import PromptEncoder
from drpo.model.source import find_model
from drpo.tasks import make_task
from drpo.train.config import TrainConfig
from drpo.train.prompt_room import check_prompts


def show_prompts(console: PlainConsole, config: TrainConfig) -> None:
    """How many problems each side has, the longest prompt, and what is left out; no weights are loaded."""
    try:
        task = make_task(config.task.name, **config.task.parameters)
        heldout = task.heldout_examples(config.most_examples)
        directory = find_model(config.model, config.trust_remote_code, weights=False)
        tokenizer = load_tokenizer(directory, config.trust_remote_code)
        model = load_model_config(directory, config.trust_remote_code)
        encoder = PromptEncoder(tokenizer, model.get_text_config().vocab_size, config.prompt_settings)
        found = check_prompts(encoder, model, task, heldout, config)
    except DrpoError as error:  # the settings were what was asked for; a run would stop at this
        console.say(f"\nprompts: a run would stop with this error. {error}")
        return
    training = "endless" if found.training is None else f"{len(found.training.examples)} problems"
    console.say(
        f"\nprompts: training {training}, held-out {len(found.heldout.examples)} problems; the longest "
        f"held-out prompt has {found.heldout.longest} tokens"
    )
    for note in found.notes():
        console.say(f"note: {note}")
