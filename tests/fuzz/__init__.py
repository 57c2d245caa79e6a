"""Structure-aware, seeded inputs for everything that reads what people wrote.

Every module with a function ``run_case(seed: int, folder: Path) -> str | None`` is a generator: it makes the inputs of
that seed (files under the empty ``folder``), gives them to the real code, and returns None where each ended in a result
with finite numbers or in one clear DrpoError, else what went wrong. ``UNITS`` is how many inputs (lines, overrides,
files) one case has. `tools/fuzz.py` runs them in child processes with a time limit; `test_fuzz.py` runs a few.
"""
