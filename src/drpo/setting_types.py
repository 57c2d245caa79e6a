"""Types that sections of settings have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

#: Unknown keys, coerced types, infinities and NaN are errors; values do not change after validation.
STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
#: Numbers of things: what is above is a slip, and would overflow where arrays are made.
Count = Annotated[int, Field(ge=1, lt=2**31)]
CountOrZero = Annotated[int, Field(ge=0, lt=2**31)]
