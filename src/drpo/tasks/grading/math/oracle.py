"""math-verify: whether two formulas are equal, and what a formula without variables is worth."""

from __future__ import annotations

import contextlib
import functools
import itertools
from fractions import Fraction
from typing import Any

from drpo.errors import DataError
from drpo.tasks.grading.exhaustion import watch_exhaustion

_PRECISION = 60
#: The relative difference of equal formulas by rounding errors, and of such that hold decimals; and what is 0.
_EXACT, _DECIMAL, _ZERO = 1e-45, 1e-5, 1e-100
#: Values for variables, positive so that √x² is x.
_POINTS = ((3, 7), (11, 5), (13, 17), (19, 23), (29, 31), (37, 41), (43, 47), (53, 59))


def parsed(text: str) -> list[Any]:
    """What math-verify reads in LaTeX that stands alone."""
    import math_verify

    # Units were read before: math-verify takes the m of 5m, and the e of 1 - \\mathrm{e}, for one.
    latex = math_verify.LatexExtractionConfig(boxed_match_priority=0, normalization_config=_normalization())
    # A timeout of 0 means none: this process is killed from outside. The library's own is an alarm signal, which C code
    # does not hear, and which it answers with "different".
    return math_verify.parse(f"\\boxed{{{text}}}", [latex], extraction_mode="first_match", parsing_timeout=0)


@functools.cache
def _normalization() -> Any:
    from latex2sympy2_extended import NormalizationConfig

    return NormalizationConfig(units=False, malformed_operators=True, nits=True)


def found_in(text: str) -> list[Any]:
    """What math-verify takes for the answer in a text."""
    import math_verify

    kinds = [math_verify.LatexExtractionConfig(boxed_match_priority=0), math_verify.ExprExtractionConfig()]
    return math_verify.parse(text, kinds, parsing_timeout=0)


def equal(answer: str, right: str, alone: bool = True) -> bool:
    """Whether math-verify finds the two equal, and their values agree to 45 digits.

    Args:
        answer: LaTeX; or, with ``alone=False``, the text to look for an answer in.
        right: the right answer.
        alone: ``answer`` is nothing but the answer.

    Raises:
        DataError: the right answer cannot be read.
        MemoryError, RecursionError: there was not enough memory or stack to tell.
    """
    import math_verify

    expected = parsed(right)
    if not expected:
        raise DataError(f"math-verify cannot read the right answer {right[:100]!r}. Correct it, or remove the problem")
    # math-verify and sympy catch every exception and call the answers different.
    with watch_exhaustion() as exhausted:
        found = parsed(answer) if alone else found_in(answer)
        relations = any(mark in right for mark in ("[", "]", r"\cup", r"\in ", r"\infty"))
        same = any(
            math_verify.verify(one, other, timeout_seconds=0, allow_set_relation_comp=relations)
            and _values_agree(one, other)
            for one, other in itertools.product(expected, found)
        )
    if exhausted and not same:
        raise _exhaustion(exhausted, answer)
    return same


@functools.lru_cache(maxsize=64)
def closed_form(text: str) -> Fraction | None:
    """The value of a real formula without variables, to fifty digits; None if it is something else.

    Raises:
        MemoryError, RecursionError: there was not enough memory or stack to tell.
    """
    import sympy

    value = None
    with watch_exhaustion() as exhausted, contextlib.suppress(MemoryError, RecursionError):
        expressions = [one for one in parsed(text) if isinstance(one, sympy.Expr)]
        value = _number(_with_imaginary_unit(expressions[0])) if expressions else None
    if exhausted:
        raise _exhaustion(exhausted, text)
    if value is None:
        return None
    real, imaginary = value.as_real_imag()
    return Fraction(str(real)) if abs(imaginary) <= _ZERO or abs(imaginary) <= _EXACT * abs(real) else None


def _exhaustion(exhausted: set[str], answer: str) -> Exception:
    kind, what = (MemoryError, "memory") if MemoryError.__name__ in exhausted else (RecursionError, "stack")
    return kind(f"math-verify ran out of {what} on the answer {answer[:100]!r}")


def _with_imaginary_unit(expression: Any) -> Any:
    """With the imaginary unit for a variable i, if it is the only one: math-verify takes the i of 2i for a variable."""
    import sympy

    symbols = list(expression.free_symbols)
    return expression.subs(symbols[0], sympy.I) if [str(symbol) for symbol in symbols] == ["i"] else expression


def _number(expression: Any) -> Any:
    """The finite value of an expression, or None."""
    import sympy

    if expression.free_symbols:
        return None
    try:
        value = expression.doit().evalf(_PRECISION, maxn=400)
    except (ArithmeticError, AttributeError, TypeError, ValueError, NotImplementedError):
        return None  # sympy cannot evaluate it
    return value if isinstance(value, sympy.Expr) and value.is_number and value.is_finite else None


def _values_agree(one: Any, other: Any) -> bool:
    """False if both have values, with numbers for their variables, and these differ: math-verify takes differences
    below 10^-15 for none. What cannot be evaluated agrees."""
    import sympy

    if isinstance(one, sympy.Eq) != isinstance(other, sympy.Eq):
        one, other = (side.rhs if isinstance(side, sympy.Eq) else side for side in (one, other))
    if not isinstance(one, sympy.Expr) or not isinstance(other, sympy.Expr):
        return True
    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    if one.free_symbols != other.free_symbols or len(symbols) > len(_POINTS):
        return True
    values: Any = {symbol: sympy.Rational(*point) for symbol, point in zip(symbols, _POINTS, strict=False)}
    first, second = (_number(side.subs(values)) for side in (one, other))
    if first is None or second is None:
        return True
    tolerance = _DECIMAL if one.has(sympy.Float) or other.has(sympy.Float) else _EXACT
    if first == 0 or second == 0:
        return bool(abs(first - second) <= _ZERO)
    return bool(abs(first - second) <= tolerance * abs(first))
