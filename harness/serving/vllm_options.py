"""vLLM's own options that `harness serve` passes on behind --: those of every engine (harness/config/engine_options.py)
and those of the server, and no others.

The list says what is allowed. Every other option of vLLM, today's or a later version's, is refused: among them are
those that open a socket, load code, read or write other files, name another model, change who may ask, or log what is
asked.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from harness.config import engine_options
from harness.core.errors import UsageError
from harness.serving.lora_adapters import MODULES, RANK, RANKS, module_words

_NUMBER = r"-?\d+(?:\.\d+)?[kKmMgGtT]?"
_NAME = r"[A-Za-z]\w*(?:-\w+)*"
_ADAPTER = r"[A-Za-z][\w.-]{,99}=[^\x00-\x1f]+"
ALIASES = {
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-q": "--quantization",
    "--device-memory-utilization": "--gpu-memory-utilization",
}
_UNITS = {
    letter: base**power for base, letters in ((1000, "kmgt"), (1024, "KMGT")) for power, letter in enumerate(letters, 1)
}
_NUMBERS = """
    --cpu-distributed-timeout-seconds --cpu-offload-gb --distributed-timeout-seconds --max-logprobs
    --max-num-active-seqs --max-num-queued-reqs --max-num-queued-tokens --pipeline-parallel-size
    --renderer-num-workers --seed --shutdown-timeout --sse-keep-alive-interval --stream-interval
"""
_NAMES = "--logprobs-mode --quantization --reasoning-parser --scheduling-policy --tool-call-parser"
_SWITCHES = """
    --disable-fastapi-docs --disable-sliding-window --enable-auto-tool-choice --enable-force-include-usage
    --enable-lora --enable-per-request-metrics --enable-prefix-caching --enable-prompt-tokens-details
    --enable-request-id-headers --enable-server-load-tracking --exclude-tools-when-tool-choice-none --kv-cache-metrics
    --return-tokens-as-token-ids --use-tqdm-on-load
"""
_SOME_VALUES = {  # others of these load code, read other files or weaken a hash
    "--chat-template-content-format": "auto|openai|string",
    "--fingerprint-mode": "full|hash|none",
    "--generation-config": "auto|vllm",
    RANK: "|".join(map(str, RANKS)),
    "--prefix-caching-hash-algo": "sha256|sha256_cbor",
}


def _flags(names: Iterable[str]) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name in names]


_ALL_SWITCHES = (*_SWITCHES.split(), *_flags(engine_options.SWITCHES))
SWITCHES = frozenset(form for name in _ALL_SWITCHES for form in (name, f"--no-{name[2:]}"))
VALUES: Mapping[str, str] = {
    **dict.fromkeys((*_NUMBERS.split(), *_flags((*engine_options.INTEGERS, *engine_options.SHARES))), _NUMBER),
    **dict.fromkeys((*_NAMES.split(), *_flags(engine_options.NAMES)), _NAME),
    **dict(zip(_flags(engine_options.CHOICES), map("|".join, engine_options.CHOICES.values()), strict=True)),
    **_SOME_VALUES,
}
_PROXY = "put a proxy in front of the server"
_REFUSED = {  # what an option would do, and what to do instead; it stands for those whose names go on with a dash
    "--api-key": ("the process list would show it", "give VLLM_API_KEY in the environment, or --api-key before the --"),
    "--host": ("it changes the address", "give --host before the --"),
    "--port": ("it changes the address", "give --port before the --"),
    "--uds": ("it changes the address", "give --host and --port before the --"),
    "--tensor-parallel-size": ("the GPUs are counted before the start", "give --tensor-parallel before the --"),
    "--dtype": ("the cache is sized by it", "give --dtype before the --"),
    "--max-model-len": ("the cache is sized by it", "give --max-model-len before the --"),
    "--config": ("it reads settings from elsewhere", "write the options out"),
    "--middleware": ("it loads code", _PROXY),
    "--trust": ("it trusts the code of a model or of a request", "serve a checkpoint that needs none"),
    "--ssl": ("it reads other files", f"{_PROXY} that does TLS"),
    "--allow": ("it changes who may ask for what", _PROXY),
    "--allowed": ("it changes who may ask for what", _PROXY),
    "--model": ("it changes the model", "give the model as CHECKPOINT"),
    "--tokenizer": ("it changes the tokenizer", "put the tokenizer into the checkpoint"),
    "--lora": ("it reads other folders", "give --lora-modules NAME=FOLDER"),
    "--enable-log": ("it logs what is asked", "log at the client"),
}
_UNKNOWN = "it is not among the options that are known to be safe, see docs/serving.md"


def allowed_options(words: Sequence[str]) -> list[str]:
    """vLLM's options in one spelling: full names with dashes, an option and its value as two words.

    vLLM's parser takes underscores and abbreviations too; what is returned leaves nothing to interpret.

    Args:
        words: What was given behind --.

    Raises:
        UsageError: An option is not on the list, is abbreviated, or its value has another form than the list says.
    """
    left, allowed = deque(words), list[str]()
    while left:
        given, equals, value = left.popleft().partition("=")
        option = ALIASES.get(name := _dashed(given), name)
        if option in SWITCHES and not equals:
            allowed.append(option)
        elif option == MODULES:
            values = [value] if equals else []
            while left and not left[0].startswith("-"):
                values.append(left.popleft())
            allowed += [option, *module_words([_checked(option, each, _ADAPTER) for each in values or [""]])]
        elif option in VALUES:
            value = value if equals else left.popleft() if left else ""
            allowed += [option, _checked(option, value, VALUES[option])]
        else:
            raise UsageError(_refusal(given, option))
    return allowed


def given_options(words: Sequence[str]) -> dict[str, str | bool]:
    """What `allowed_options` returned, by vLLM's names with underscores; of one that is given twice the last."""
    found: dict[str, str | bool] = {}
    for word, following in itertools.pairwise([*words, ""]):
        if word in SWITCHES:
            found[word.removeprefix("--no-").removeprefix("--").replace("-", "_")] = not word.startswith("--no-")
        elif word.startswith("--"):
            found[word.removeprefix("--").replace("-", "_")] = following
    return found


def count_of(value: str | int) -> int:
    """A whole number as vLLM reads it: 1k is 1000, and 1K is 1024."""
    text = str(value)
    unit = _UNITS.get(text[-1:])
    return int(text) if unit is None else int(float(text[:-1]) * unit)


def _dashed(name: str) -> str:
    return name.replace("_", "-") if name.startswith("--") else name


def _checked(option: str, value: str, pattern: str) -> str:
    if re.fullmatch(pattern, value, re.ASCII):
        return value
    form = {_NUMBER: "a number", _NAME: "a name", _ADAPTER: "NAME=FOLDER"}.get(pattern)
    form = form or pattern.replace(_NUMBER, "a number").replace("|", ", ")
    raise UsageError(f"{option} behind -- needs a value of this form: {form}; see docs/serving.md")


def _refusal(given: str, option: str) -> str:
    """Without the value, which may be a key."""
    if not (shown := re.match(r"--?[A-Za-z][\w-]{,60}", given, re.ASCII)):
        return "a word behind -- belongs to no option; give only options of vLLM there, such as --max-num-seqs 8"
    if option in SWITCHES:
        return f"{option} behind -- takes no value; leave out the = and what follows"
    name = f"--{option.lstrip('-').partition('.')[0]}"  # of a short name the long one
    for known, (what, instead) in _REFUSED.items():
        if known.startswith(name) or f"{name}-".startswith(f"{known}-"):
            return f"{shown[0]} is refused behind --: {what}; {instead}"
    near = difflib.get_close_matches(option, [*VALUES, *SWITCHES], n=1)
    instead = f"did you mean {near[0]}?" if near else "leave it out, or start `vllm serve` yourself"
    return f"{shown[0]} is refused behind --: {_UNKNOWN}; {instead}"
