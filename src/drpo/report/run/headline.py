"""The head of the page: the run, its status, held-out accuracy before and after, and its facts."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from drpo.intervals import accuracy_interval
from drpo.report.html.command import command
from drpo.report.html.escape import as_text, visible
from drpo.report.html.quantities import percent, plain, seconds
from drpo.report.run.history import History, Record, failed_rewards, time_by_part, value_of
from drpo.run_checkpoints import best_evaluation

#: Longest setting that is written out.
LONGEST = 200
#: The colors of the first and of the last evaluation.
COLORS = (4, 1)
DOTS = tuple(f"<span class='c{color}' aria-hidden='true'>●</span>" for color in COLORS)


def title_of(history: History) -> str:
    """“drpo on addition”."""
    return f"{_name(history.config.get('objective'))} on {_name(history.config.get('task'))}"


def headline(history: History) -> str:
    """What the run came to, its status, accuracy before and after, its facts and its command."""
    status = as_text(history.manifest.get("status") or "status unknown")
    outcome = history.outcome
    good = status == "finished" and outcome.get("kind") in (None, "improved", "unknown")
    badge = f"<span class='status {'finished' if good else ''}'>{visible(status, 40)}</span>"
    title = f"{visible(title_of(history), LONGEST)}, run <code>{visible(history.name, LONGEST)}</code> {badge}"
    return (
        f"<p class='soft'>{title}</p>{_outcome(outcome, history)}"
        f"<div class='lead'><div>{_result(history)}</div>{_facts(history)}</div>{_command(history)}"
    )


def _outcome(outcome: Mapping[str, Any], history: History) -> str:
    """What the run came to, as its manifest says; the title for a run that has not ended, or is older than that."""
    parts = [outcome.get(name) for name in ("sentence", "reason", "try_next")]
    said = [visible(part, 4 * LONGEST) for part in parts if isinstance(part, str) and part]
    if not said:
        return f"<h1>{visible(title_of(history), LONGEST)}</h1>"
    bad = " class='bad'" if outcome.get("kind") == "worse" else ""
    more = f"<p>{' '.join(said[1:])}</p>" if len(said) > 1 else ""
    return f"<h1{bad}>{said[0]}</h1>{more}"


def _command(history: History) -> str:
    """How the run was started, to copy."""
    given = history.manifest.get("command")
    if not given:
        return ""
    return command(shlex.join(map(str, given)) if isinstance(given, list) else as_text(given), 8000)


def described(setting: object) -> str:
    """A named setting as a call: ``drpo(delta=0.15)``, as escaped HTML."""
    if not isinstance(setting, Mapping):
        return visible("–" if setting is None else setting, LONGEST)
    values = ", ".join(f"{key}={as_text(value)}" for key, value in setting.items() if key != "name")
    return visible(f"{_name(setting)}({values})" if values else _name(setting), 2 * LONGEST)


def _name(setting: object) -> str:
    name = setting.get("name") if isinstance(setting, Mapping) else setting
    return "unnamed" if name is None else as_text(name)


def _result(history: History) -> str:
    """Held-out accuracy before → after, with counts and intervals."""
    measured = [record for record in history.evaluations if value_of(record, "accuracy") is not None]
    if not measured:
        return "<p class='none'>No evaluation was recorded.</p>"
    shown = [measured[0]] if len(measured) == 1 else [measured[0], measured[-1]]
    numbers = " <span>→</span> ".join(percent(value_of(record, "accuracy")) for record in shown)
    when = "before training" if shown[0]["step"] == 0 else f"at step {shown[0]['step']}"
    when += f" → after step {shown[1]['step']}" if len(shown) == 2 else "; no later evaluation was recorded"
    counts = "".join(map(_counts, shown, DOTS))
    return (
        f"<p class='result'>{numbers}</p><p class='soft'>held-out accuracy {when}</p>{_intervals(shown)}"
        f"<div class='counts'>{counts}</div>{_samples_note(shown)}{_pass_rates(shown[-1])}"
    )


def _counts(record: Record, dot: str) -> str:
    correct, samples = value_of(record, "correct"), value_of(record, "samples")
    interval = accuracy_interval(record)
    if interval is None:
        return f"<div>{dot} step {record['step']}: no counts recorded</div>"
    low, high = interval
    return (
        f"<div>{dot} step {record['step']}: {plain(correct)} of {plain(samples)} correct, "
        f"95 % confidence interval {percent(round(low, 3))} to {percent(round(high, 3))}</div>"
    )


def _samples_note(shown: list[Record]) -> str:
    samples, examples = value_of(shown[-1], "samples"), value_of(shown[-1], "examples")
    over_problems = value_of(shown[-1], "avg_at_k.low") is not None
    if over_problems or not samples or not examples or samples <= examples:
        return ""
    return (
        f"<p class='soft'>{plain(samples / examples)} samples for each of {plain(examples)} prompts. "
        "The Wilson interval assumes independent samples, so for new prompts it is too narrow.</p>"
    )


def _pass_rates(record: Record) -> str:
    """pass@k of the last evaluation for every k above 1, each with its interval."""
    rates = record.get("pass_at_k")
    parts = []
    for k in rates if isinstance(rates, dict) else ():
        mean, low, high = (value_of(record, f"pass_at_k.{k}.{part}") for part in ("mean", "low", "high"))
        if k.isdigit() and k != "1" and mean is not None and low is not None and high is not None:
            parts.append(f"pass@{k} {percent(mean)} ({percent(round(low, 3))} to {percent(round(high, 3))})")
    if not parts:
        return ""
    shown = ", ".join(parts)
    return f"<p class='soft'>After step {record['step']}: {shown}; 95 % confidence intervals over problems.</p>"


def _intervals(shown: list[Record]) -> str:
    """The accuracies as dots with their intervals on one line from 0 to 100 %."""
    parts = ["<path class='axis' d='M10 48H390'/>"]
    parts += [
        f"<path class='axis' d='M{at} 45V48'/><text x='{at}' y='62' text-anchor='middle'>{label}</text>"
        for at, label in ((10, "0"), (105, "25"), (200, "50"), (295, "75"), (390, "100 %"))
    ]
    for i, record in enumerate(shown):
        height, color = 14 + 18 * i, COLORS[i]
        at = 10 + 380 * min(1.0, max(0.0, value_of(record, "accuracy") or 0.0))
        interval = accuracy_interval(record)
        if interval:
            low, high = (10 + 380 * bound for bound in interval)
            parts.append(f"<g class='c{color}'><path class='line' d='M{low:.1f} {height}H{high:.1f}'/></g>")
        parts.append(f"<g class='c{color}'><circle cx='{at:.1f}' cy='{height}' r='5'/></g>")
    label = "Held-out accuracy " + ", then ".join(percent(value_of(record, "accuracy")) for record in shown)
    return f"<svg viewBox='0 0 400 68' role='img' aria-label='{label}'>{''.join(parts)}</svg>"


def _parent(parent: object) -> dict[str, str]:
    """Of a branch, what it goes on from."""
    if not isinstance(parent, Mapping):
        return {}
    return {"branch of": f"{visible(parent.get('path'), LONGEST)}, after its step {visible(parent.get('step'), 20)}"}


def _best(history: History) -> str:
    """The checkpoint with the highest held-out accuracy."""
    record = best_evaluation(history.evaluations, history.checkpoints)
    accuracy = None if record is None else value_of(record, "accuracy")
    if record is None or accuracy is None:
        return "–"
    return f"step {record['step']}, held-out {percent(accuracy)} (<code>--step best</code>)"


def _facts(history: History) -> str:
    config, manifest = history.config, history.manifest
    planned = history.steps_planned
    done = history.steps_done
    steps = f"{done}" if planned in (None, done) else f"{done} of {planned}"
    responses, tokens = (plain(sum(history.values(key))) for key in ("sequences", "tokens"))
    seed = config.get("seed", manifest.get("seed"))
    rows = {
        "objective": f"<code>{described(config.get('objective'))}</code>",
        "task": f"<code>{described(config.get('task'))}</code>",
        "model": described(config.get("model")),
        **_parent(manifest.get("parent")),
        "steps": f"{steps}, {len(history.updates):,} updates",
        "seed": visible("–" if seed is None else seed, LONGEST),
        "device": visible(manifest.get("device") or "–", LONGEST),
        "started": visible(manifest.get("started") or "–", LONGEST),
        "best checkpoint": _best(history),
        "measured time": seconds(sum(time_by_part(history).values())),
        "trained on": f"{responses} responses, {tokens} tokens",
        "failed rewards": f"{failed_rewards(history):,.0f}",
    }
    return f"<dl>{''.join(f'<dt>{key}</dt><dd>{value}</dd>' for key, value in rows.items())}</dl>"
