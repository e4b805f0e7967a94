"""Settings of `harness dissociate` that no other command has."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class DissociateConfig(BaseModel):
    """How many sets of neurons of each kind are compared."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    matched_sets: int = Field(
        default=10, ge=2, description="Random sets of each kind that are matched with a task's neurons."
    )
    random_sets: int = Field(
        default=19, ge=2, description="Random sets of the same size; a rank test at 5 % needs 19 or more."
    )
    calibration_seeds: int = Field(
        default=3, ge=1, description="Draws of calibration prompts, each with its own choice of neurons."
    )
