"""Whether a program gives what EvalPlus's canonical solution gives on the same inputs. Runs outside the sandbox, in
jail/checker.py, so it needs nothing but the standard library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tasks.jail.cell import Opaque

_FLOAT_ATOL = 1e-6  # EvalPlus's, where a problem names none and a float is expected
_RTOL = 1e-7
_ZERO = "find_zero"  # HumanEval/32: any zero of the polynomial is right
_ZERO_ATOL = 1e-4  # HumanEval's own, for problems that name none


def judge(
    function: Callable[..., Any],
    entry_point: str,
    cases: Sequence[tuple[list[Any], Any]],
    atol: float,
    as_sets: bool,
) -> None:
    """Calls the program with each input.

    Args:
        function: The program's function, in the sandbox.
        entry_point: Its name.
        cases: (arguments, output of the canonical solution).
        atol: Absolute tolerance of floats; 0 for EvalPlus's default.
        as_sets: Whether order and repetition do not matter in what is returned.

    Raises:
        AssertionError: An output is not the expected one; and whatever the program raises.
    """
    for arguments, expected in cases:
        output = function(*arguments)
        if entry_point == _ZERO:
            right = _is_zero(arguments[0], output, atol or _ZERO_ATOL)
        elif as_sets:
            right = set(output) == set(expected)
        else:
            right = same(output, expected, atol or _FLOAT_ATOL)
        assert right, f"{output!r:.200} is not {expected!r:.200}"


def same(output: Any, expected: Any, atol: float) -> bool:
    """Equal, with a tolerance for floats at any depth. Of an object that cannot leave the sandbox (a match) only that
    there is one is compared, as EvalPlus does.
    """
    if isinstance(expected, Opaque):
        return output is not None
    if isinstance(expected, float) and isinstance(output, int | float):
        if math.isnan(expected):
            return math.isnan(output)
        return output == expected or abs(output - expected) <= atol + _RTOL * abs(expected)
    if type(output) is not type(expected):
        return bool(output == expected)
    if isinstance(expected, list | tuple):
        return len(output) == len(expected) and all(same(*pair, atol) for pair in zip(output, expected, strict=True))
    if isinstance(expected, dict):
        return output.keys() == expected.keys() and all(same(output[key], expected[key], atol) for key in expected)
    return bool(output == expected)


def _is_zero(coefficients: Sequence[float], x: float, atol: float) -> bool:
    return abs(math.fsum(coefficient * x**power for power, coefficient in enumerate(coefficients))) <= atol
