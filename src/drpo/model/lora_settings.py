"""The settings of low-rank adapters."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, field_validator

from drpo.setting_types import STRICT, Count


class Lora(BaseModel):
    """Low-rank adapters: W + (alpha / rank) · B A on every targeted linear layer, and only A and B train."""

    model_config = STRICT

    rank: Count = Field(default=16, description="rows of A")
    alpha: float = Field(default=32.0, gt=0, description="what B A is multiplied by, times the rank")
    targets: Literal["all-linear"] | list[str] = Field(
        default="all-linear",
        description="all-linear (each nn.Linear but the LM head), or names such as [q_proj, v_proj]",
    )
    dropout: float = Field(default=0.0, description="must stay 0")

    @field_validator("dropout")
    @classmethod
    def _no_dropout(cls, value: float) -> float:
        if value != 0:
            raise ValueError("must stay 0: with dropout log π of a token is random, and π is not what was sampled from")
        return value
