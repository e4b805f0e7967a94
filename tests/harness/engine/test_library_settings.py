"""The process is as it was after the libraries have worked in it."""

from __future__ import annotations

import logging
import os
import random
import warnings

import numpy as np
import pytest
import torch
from tqdm.std import tqdm

from harness.engine.library_settings import library_settings, replaced, torch_functions
from tests.support.process_state import changed, process_state


def disturb() -> None:
    """What lm-eval and vLLM do to a process."""
    os.environ["VLLM_DIST_IDENT"] = "x"
    os.environ.pop("HOME", None)
    warnings.filterwarnings("error")
    logging.getLogger("vllm").setLevel(logging.DEBUG)
    torch.set_num_threads(3)
    random.seed(0)
    np.random.seed(1234)
    torch.manual_seed(1234)
    torch.cuda.set_stream = torch.set_num_threads = lambda *_: None  # type: ignore[assignment]
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


@pytest.mark.parametrize("failing", [False, True])
def test_the_process_is_as_it_was(failing: bool) -> None:
    before = process_state()
    try:
        with library_settings(2), torch_functions():
            assert os.environ["OMP_NUM_THREADS"] == "2" and os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
            assert list(tqdm(range(2), disable=None)) == [0, 1] and tqdm(range(2)).disable
            assert logging.getLogger("lm_eval").level == logging.ERROR
            disturb()
            if failing:
                raise ValueError("inside")
    except ValueError:
        assert failing
    assert not changed(before)


def test_the_next_engine_finds_what_vllm_put_there_while_it_was_imported() -> None:
    before = torch.cuda.stream

    def placeholder() -> None: ...

    with torch_functions():
        torch.cuda.stream = placeholder  # type: ignore[assignment]
    assert torch.cuda.stream is before
    with torch_functions():
        assert torch.cuda.stream is placeholder
        with torch_functions():
            assert torch.cuda.stream is placeholder
        assert torch.cuda.stream is placeholder
    assert torch.cuda.stream is before


def test_replaced_leaves_an_inherited_attribute_inherited() -> None:
    class Parent:
        value = 1

    child = type("Child", (Parent,), {})()
    with replaced(child, value=2):
        assert child.value == 2
    assert child.value == 1 and "value" not in vars(child)
