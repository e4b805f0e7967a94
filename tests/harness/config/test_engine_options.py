"""vLLM's own options: as they are written, of the types that vLLM has for them, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.config.engine_options import CHOICES, INTEGERS, KNOWN, NAMES, SHARES, SWITCHES
from harness.config.settings import config_yaml, load_config
from harness.core.errors import UsageError

TEXT = "block-size=32,gpu_memory_utilization=1,enforce_eager=true,attention_backend=TRITON_ATTN,model_impl=vllm"
OPTIONS = {
    "block_size": 32,
    "gpu_memory_utilization": 1.0,
    "enforce_eager": True,
    "attention_backend": "TRITON_ATTN",
    "model_impl": "vllm",
}


def test_options_are_the_same_from_a_text_a_list_a_file_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yaml").write_text(config_yaml(load_config(None, {"engine_arg": OPTIONS})))
    given = [load_config(None, {"engine_arg": value}) for value in (TEXT, TEXT.split(","), OPTIONS)]
    monkeypatch.setenv("HARNESS_ENGINE_ARG", f"--{TEXT}")
    for config in (*given, load_config(tmp_path / "a.yaml", {}), load_config(None, {})):
        assert config.engine_arg == OPTIONS
        assert [type(value) for value in config.engine_arg.values()] == [int, float, bool, str, str]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("block_size=1.5", "block_size must be a whole number"),
        ("block_size=true", "block_size must be a whole number"),
        ("block_size=0", "block_size must be a whole number of at least 1"),
        ("gpu_memory_utilization=0", "gpu_memory_utilization must be a number from 0 to 1, above 0"),
        ("max_num_seqs=-1", "max_num_seqs must be a whole number"),
        ("gpu_memory_utilization=1.5", "gpu_memory_utilization must be a number from 0 to 1"),
        ("gpu_memory_utilization=true", "must be a number from 0 to 1"),
        ("enforce_eager=1", "enforce_eager must be true or false"),
        ("attention_backend=a.b", "attention_backend must be a name"),
        ("distributed_executor_backend=os.system", "must be one of mp, uni"),
        ("block_size", "'block_size' is not NAME=VALUE"),
        ("block_size=1,block_size=2", "block_size is given twice"),
        ("max_num_batch_tokens=1", "max_num_batch_tokens is not allowed, did you mean max_num_batched_tokens?"),
        ("speculative_config=1", "speculative_config is not allowed; docs/serving.md lists what is"),
        ("a b=1", "a name is not one of vLLM's options"),
    ],
)
def test_an_option_that_is_unknown_or_of_another_type_is_refused_in_a_line(given: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_config(None, {"engine_arg": given})
    assert str(refused.value).startswith("bad settings: --engine-arg: ") and said in str(refused.value)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("tensor_parallel_size", "--tensor-parallel"),
        ("dtype", "--dtype"),
        ("model", "to the command"),
        ("seed", "always 0"),
        ("max_model_len", "tasks"),
        ("worker_extension_cls", "swapped"),
        ("trust_remote_code", "no code"),
        ("quantization", "harness serve"),
    ],
)
def test_what_is_set_already_is_refused_with_the_way_to_set_it(name: str, instead: str) -> None:
    for spelling in (name, f"--{name.replace('_', '-')}"):
        with pytest.raises(UsageError, match=f"{name} is set already: .*{instead}") as refused:
            load_config(None, {"engine_arg": f"{spelling}=KEY-7"})
        assert "KEY-7" not in str(refused.value)


def test_the_page_lists_every_option() -> None:
    page = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    section = page.split("## Options of vLLM for every engine")[1].split("\n## ")[0]
    assert [name for name in KNOWN if f"`{name}`" not in section] == []


SAMPLES: dict[str, Any] = {
    **dict.fromkeys(INTEGERS, 1),
    **dict.fromkeys(SHARES, 0.5),
    **dict.fromkeys(NAMES, "auto"),
    **dict.fromkeys(SWITCHES, True),
    **{name: values[0] for name, values in CHOICES.items()},
}


@pytest.mark.slow
def test_every_option_has_the_type_that_vllm_has_for_it() -> None:
    """By vLLM's own reading of the types of EngineArgs' fields; an IntEnum is a number."""
    from enum import IntEnum

    from vllm.engine import arg_utils

    hints = {name: arg_utils.get_type_hints(kind) for name, kind in arg_utils.EngineArgs.__annotations__.items()}
    for name, value in SAMPLES.items():
        kinds = [kind for hint in hints[name] for kind in (hint, *getattr(hint, "__mro__", ()))]
        numbers = arg_utils.contains_type(hints[name], int) or IntEnum in kinds
        expected = {int: numbers, float: arg_utils.contains_type(hints[name], float), bool: bool in hints[name]}
        assert expected.get(type(value), not numbers), name
    assert set(SAMPLES) == set(KNOWN)
