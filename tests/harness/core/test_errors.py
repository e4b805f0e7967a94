"""What is kept of other libraries' error messages."""

from __future__ import annotations

import pytest
from huggingface_hub.errors import StrictDataclassFieldValidationError
from pydantic import BaseModel, PositiveInt, ValidationError, field_validator

from harness.core.errors import first_line


class _Config(BaseModel):
    tokens: PositiveInt = 1
    kind: str = "a"

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind != "a":
            raise ValueError(f"kind {kind} is not supported")
        return kind


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"kind": "b"}, "1 validation error for _Config: kind Value error, kind b is not supported"),
        ({"tokens": 0}, "1 validation error for _Config: tokens Input should be greater than 0"),
    ],
)
def test_a_validation_error_keeps_its_reason(values: dict[str, object], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        _Config.model_validate(values)
    assert first_line(caught.value) == line


def test_a_reason_on_the_second_line_of_a_validation_error_is_kept() -> None:
    reason = TypeError("Field 'width' expected int, got str (value: 'x')")
    told = first_line(StrictDataclassFieldValidationError("width", reason))
    assert told == f"Validation error for field 'width': TypeError: {reason}"


def test_an_error_without_a_text_is_named() -> None:
    assert first_line(KeyError()) == "KeyError()"
    assert first_line(RuntimeError("what\nwhere")) == "what"
