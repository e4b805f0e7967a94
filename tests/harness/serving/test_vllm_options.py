"""Behind `--` stand options that size and schedule the engine, spelled as vLLM would read them, and no others."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.core.errors import UsageError
from harness.serving.vllm_options import ALIASES, SWITCHES, VALUES, allowed_options, count_of, given_options

KEY = "hk-LEAK-9922"


def sample(pattern: str) -> str:
    return pattern.split("|")[0] if "|" in pattern else "8" if pattern.startswith("-?") else "auto"


@pytest.mark.parametrize("words", [[name] for name in sorted(SWITCHES)] + [[n, sample(p)] for n, p in VALUES.items()])
def test_every_option_of_the_list_is_passed_on_in_one_spelling(words: list[str]) -> None:
    assert allowed_options(words) == words
    assert allowed_options([f"--{words[0][2:].replace('-', '_')}", *words[1:]]) == words
    assert allowed_options(["=".join(words)]) == words


def test_short_names_and_repeated_options_are_as_vllm_reads_them() -> None:
    words = ["-pp", "2", "-q=fp8", "--seed", "1", "--seed=2", "--device_memory-utilization", ".5".rjust(3, "0")]
    canonical = ["--pipeline-parallel-size", "2", "--quantization", "fp8", "--seed", "1", "--seed", "2"]
    assert allowed_options(words) == [*canonical, "--gpu-memory-utilization", "0.5"]


REFUSED = [
    *("--host", "--hos", "--ho", "--HOST", "--port", "--por", "--api-key", "--api_key", "--api-k", "--api_ke", "--uds"),
    *("--middleware", "--middle", "--config", "--conf", "--trust-remote-code", "--trust_remote_code", "--trust-remote"),
    *("--headless", "--no-headless", "--ssl-keyfile", "--ssl_certfile", "--ssl-ca-certs", "--grpc", "--root-path"),
    *("--model", "--tokenizer", "--chat-template", "--lora-modules", "--download-dir", "--hf-token", "--revision"),
    *("--allowed-origins", "--allowed-local-media-path", "--enable-log-requests", "--logging-config", "--log-level"),
    *("--compilation-config", "-cc", "-sc", "-O3", "--speculative-config", "--kv-transfer-config", "--worker-cls"),
    *("--logits-processors", "--scheduler-cls", "--tool-parser-plugin", "--tool-server", "--omni", "--help", "-h"),
    *("--data-parallel-address", "-dpa", "-dp", "--master-addr", "--otlp-traces-endpoint", "--load-format", "--host.x"),
    *("--max-num-seqs.x", "--max-num-seq", "-max-num-seqs", "--no-seed", "--api-server-count", "--api-"),
]


@pytest.mark.parametrize("option", REFUSED)
@pytest.mark.parametrize("form", [[""], ["", KEY], [f"={KEY}"], [f".x={KEY}"], [f".x+={KEY}"]])
def test_every_other_option_is_refused_in_one_line_that_names_it(option: str, form: list[str]) -> None:
    words = ["--seed", "1", f"{option}{form[0]}", *form[1:]]
    with pytest.raises(UsageError) as refused:
        allowed_options(words)
    text = str(refused.value)
    assert text.startswith(option.partition(".")[0]) and " behind --" in text and ("; " in text)
    assert KEY not in text and "\n" not in text


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("--host", "--host"),
        ("--por=1", "--port"),
        ("--api_key", "VLLM_API_KEY"),
        ("--model", "CHECKPOINT"),
        ("-tp", "--tensor-parallel before the --"),
        ("--tensor_parallel_size=2", "--tensor-parallel before the --"),
        ("--dtype=float16", "--dtype before the --"),
        ("--max-model-len", "--max-model-len before the --"),
        ("--max-num-seq", "--max-num-seqs"),
        ("--ssl-keyfile", "proxy"),
        ("--swap-space", "`vllm serve` yourself"),
    ],
)
def test_the_refusal_says_what_to_do(option: str, instead: str) -> None:
    with pytest.raises(UsageError, match=f"; .*{instead}"):
        allowed_options([option])


@pytest.mark.parametrize(
    "words",
    [
        *([KEY], [""], ["--"], ["-"], ["--=1"], ["\u2013\u2013host", "x"], ["--seed", "1", "--", "--host", "x"]),
        *(["--seed"], ["--seed="], ["--seed", ""], ["--seed", "--host"], ["--seed", "1 --host 0.0.0.0"]),
        *(["--seed", "1\n"], ["--seed", "\u0661"], ["--enforce-eager=false"], ["--enforce-eager", "x"]),
        *(["--dtype", "a.b"], ["--dtype", "--host"], ["--quantization", "/tmp/x"], ["--reasoning-parser", "a.py"]),
        *(["--generation-config", "/tmp"], ["--distributed-executor-backend", "os.system"]),
        ["--prefix-caching-hash-algo", "xxhash"],
    ],
)
def test_words_that_belong_to_no_option_and_values_of_another_form_are_refused(words: list[str]) -> None:
    with pytest.raises(UsageError) as refused:
        allowed_options(words)
    assert "behind --" in str(refused.value) and KEY not in str(refused.value)


def test_what_was_given_is_known_by_vllms_names() -> None:
    words = [
        "--max_num_seqs=8",
        "--no-enable-chunked-prefill",
        "--enforce-eager",
        "--max-num-seqs",
        "9",
        "--seed",
        "-1",
    ]
    assert given_options([]) == {}
    found = given_options(allowed_options(words))
    assert found == {"max_num_seqs": "9", "enable_chunked_prefill": False, "enforce_eager": True, "seed": "-1"}


@pytest.mark.slow
@pytest.mark.parametrize("text", ["1", "512", "1k", "1K", "2m", "2M", "1g", "1G", "1.5k", "3t", "3T"])
def test_a_number_is_read_as_vllm_reads_it(text: str) -> None:
    from vllm.engine.arg_utils import human_readable_int

    assert count_of(text) == human_readable_int(text)


def test_the_page_lists_what_is_allowed() -> None:
    page = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    listed = page.split("### Options of vLLM")[1].split("\n## ")[0]
    assert [name for name in (*VALUES, *SWITCHES) if f"`{name}`" not in listed and not name.startswith("--no-")] == []


def spellings(name: str) -> Iterator[list[str]]:
    """Its abbreviations with dashes and underscores, unless they are the name of an option of the list."""
    lengths = {*range(3, len(name), 3), len(name) - 1, len(name)}
    begins = {name[:length] for length in lengths} - {*VALUES, *SWITCHES, *ALIASES}
    for begin in begins | {f"--{begin[2:].replace('-', '_')}" for begin in begins}:
        yield from ([begin], [f"{begin}=1"])
    yield from ([f"{name}.x=1"], [f"{name}.x", "1"], [name, "1"])


def passes(words: list[str]) -> bool:
    try:
        allowed_options(words)
    except UsageError:
        return False
    return True


@pytest.mark.long
@pytest.mark.slow
def test_of_all_options_of_the_installed_vllm_only_those_of_the_list_pass_in_any_spelling() -> None:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser())
    known = {name: action for action in parser._actions for name in action.option_strings}
    assert {*VALUES, *SWITCHES} <= known.keys() and len(known) > 300
    for name, action in known.items():
        if name in SWITCHES:
            assert isinstance(action, argparse.BooleanOptionalAction)
        elif name in VALUES:
            assert action.nargs is None
        elif name not in ALIASES:
            assert not [words for words in spellings(name) if passes(words)]
