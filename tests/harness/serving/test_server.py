"""`harness serve` as a user starts it: a real server under load, its end on SIGTERM and when its engine dies."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import psutil
import pytest

from harness.core.errors import UsageError
from harness.engine.memory_budget import EngineSettings
from harness.pipeline.run_json import run_schema
from harness.serving import server
from harness.serving.server import Address, check_address, command, free_port
from pruning.checkpoint import open_model
from tests.support.cli import PATIENCE, harness
from tests.support.models import TINY_MATH

KEY = "hk-LEAK-9922"
TOKEN = "hf_LEAK_7711"
GIVEN = {"Authorization": f"Bearer {KEY}"}
TOKENS = 24
CUT = 400  # tokens that a client asks for that hangs up at the first


@dataclass
class Started:
    process: subprocess.Popen[str]
    url: str
    found: dict[str, Any]
    folder: Path


def start(folder: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    line = [
        sys.executable,
        "-m",
        "harness",
        "serve",
        str(TINY_MATH),
        "--port",
        "0",
        "--json",
        "--out",
        str(folder),
        *options,
    ]
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    parent = psutil.Process(process.pid)
    return [parent, *parent.children(recursive=True)]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("serve") / "run"
    options = ("--api-key", KEY, "--", "--max_num_batched_tokens=1k", "--no-use-tqdm-on-load")
    process = start(folder, *options, HF_TOKEN=TOKEN)
    said = ""
    while not said.rstrip().endswith("}") and process.poll() is None:
        said += process.stdout.readline()  # type: ignore[union-attr]
    assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
    found = json.loads(said)
    yield Started(process, found["url"], found, folder)
    process.kill()
    process.wait()


@pytest.mark.parametrize(("chat", "asked"), [(True, "messages"), (False, "prompt")])
@pytest.mark.parametrize("key", [None, KEY])
def test_the_curl_line_is_one_for_a_shell(chat: bool, asked: str, key: str | None) -> None:
    words = shlex.split(server.curl_line(Address("::1", 8001, key), "a 'b' $c", chat))
    assert words[:2] == ["curl", f"http://[::1]:8001/v1/{'chat/completions' if chat else 'completions'}"]
    body = json.loads(words[words.index("-d") + 1])
    assert body["model"] == "a 'b' $c" and asked in body
    assert ("Authorization: Bearer $VLLM_API_KEY" in words) == (key is not None)


@pytest.mark.long
@pytest.mark.slow
def test_run_json_says_what_the_server_holds(serving: Started) -> None:
    run = json.loads((serving.folder / "run.json").read_text())
    jsonschema.validate(run, run_schema())
    held = run["variants"][0]["serving"]
    assert (held["mode"], held["concurrency"], held["kv_bytes_per_token"]) == ("online", [], 2 * 2048 // 2)
    assert (
        held["kv_capacity_tokens"] == held["kv_blocks"] * 128 == 129 * 512
    )  # as many sequences of the longest context and one
    assert held["forecast"] == {}  # vLLM's own options were given, which no formula of ours knows
    assert (serving.folder / "report.html").exists()


@pytest.mark.long
@pytest.mark.slow
def test_only_the_health_check_does_without_the_key(serving: Started) -> None:
    root = serving.url.removesuffix("/v1")
    assert httpx.get(f"{root}/health").status_code == 200
    for path in ("/metrics", "/version", "/openapi.json", "/docs", "/load", "/v1/models"):
        assert httpx.get(f"{root}{path}").status_code == 401
        assert httpx.get(f"{root}{path}", headers={"authorization": f"bearer  {KEY}"}).status_code == 200
    for path in (
        "/invocations",
        "/tokenize",
        "/generative_scoring",
        "/v1/completions",
    ):  # vLLM itself guards only the last
        body = {"model": "tiny-math", "prompt": "Question:", "max_tokens": 1}
        assert httpx.post(f"{root}{path}", json=body).status_code == 401
        assert httpx.post(f"{root}{path}", json=body, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert httpx.get(f"{serving.url}/models", headers=GIVEN).json()["data"][0]["id"] == "tiny-math"


@pytest.mark.long
@pytest.mark.slow
def test_nobody_sees_the_key_whatever_is_asked(serving: Started) -> None:
    for path in (f"/models?api_key={KEY}", f"/{KEY}", f"/models?token={TOKEN}&other=hidden-in-a-query"):
        httpx.get(f"{serving.url}{path}", headers=GIVEN)
        httpx.get(f"{serving.url}{path}")
    httpx.post(f"{serving.url}/completions", json={"model": KEY, "prompt": TOKEN}, headers=GIVEN)
    log = Path(serving.found["log"])
    assert log.stat().st_mode & 0o777 == 0o600 and "Application startup" in log.read_text()
    for secret in (KEY, TOKEN, "hidden-in-a-query"):
        assert all(secret not in " ".join(process.cmdline()) for process in family(serving.process))
        files = [path for path in serving.folder.rglob("*") if path.is_file()]
        assert [path for path in files if secret.encode() in path.read_bytes()] == []
    assert "--api-key ... --" in json.loads((serving.folder / "manifest.json").read_text())["command"]


async def streamed(client: httpx.AsyncClient, url: str, i: int, cut: bool) -> Any:
    """Tokens of the answer as the server counts them at its end; several can come in one event."""
    body = {
        "model": "tiny-math",
        "prompt": f"Question: Tom has {i} bags",
        "stream": True,
        "ignore_eos": True,
        "temperature": 0,
    }
    body |= {"max_tokens": CUT if cut else TOKENS, "stream_options": {"include_usage": True}}
    usage = None
    async with client.stream("POST", f"{url}/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                if cut:
                    return "cut"
                usage = json.loads(line.removeprefix("data: ")).get("usage") or usage
    return usage and usage["completion_tokens"]


async def posted(client: httpx.AsyncClient, url: str, body: bytes) -> int:
    return (
        await client.post(f"{url}/completions", content=body, headers={"Content-Type": "application/json"})
    ).status_code


async def load(url: str) -> Counter[Any]:
    """200 at once: most are streamed to the end, some hang up midway, some are no JSON, some far too long."""
    too_long = json.dumps({"model": "tiny-math", "prompt": "word " * 5000, "max_tokens": 8}).encode()
    async with httpx.AsyncClient(headers=GIVEN, timeout=PATIENCE, limits=httpx.Limits(max_connections=250)) as client:
        kinds = [lambda i: streamed(client, url, i, False)] * 6 + [lambda i: streamed(client, url, i, True)] * 2
        kinds += [lambda _: posted(client, url, b'{"model": "tiny-math", '), lambda _: posted(client, url, too_long)]  # type: ignore[list-item]
        return Counter(await asyncio.gather(*(kinds[i % 10](i) for i in range(200))))


def counted(url: str) -> Counter[Any]:
    """In a thread of its own: a browser's tests leave an event loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, load(url)).result()


def metrics(url: str) -> tuple[float, float]:
    """Requests that run or wait, and tokens made so far."""
    text = httpx.get(url.replace("/v1", "/metrics"), headers=GIVEN, timeout=PATIENCE).text
    lines = [line for line in text.splitlines() if line.startswith("vllm:")]
    now = {line.partition("{")[0]: float(line.split()[-1]) for line in lines}
    return now["vllm:num_requests_running"] + now["vllm:num_requests_waiting"], now["vllm:generation_tokens_total"]


@pytest.mark.long
@pytest.mark.slow
def test_every_good_request_is_answered_beside_bad_and_cancelled_ones(serving: Started) -> None:
    """Of three times: on a busy machine a client may see the first event when all tokens are made."""
    for_the_cut = [made_for_the_cut(serving.url) for _ in range(3)]
    assert 0 < min(for_the_cut) < 40 * CUT, "whoever hung up takes nothing any more"


def made_for_the_cut(url: str) -> float:
    """Tokens that were made for those who hung up, once nothing runs or waits any more."""
    _, before = metrics(url)
    assert counted(url) == {TOKENS: 120, "cut": 40, 400: 40}
    deadline = time.monotonic() + 60
    while (found := metrics(url))[0]:
        assert time.monotonic() < deadline, f"{found[0]} requests still run or wait"
        time.sleep(0.1)
    return found[1] - before - 120 * TOKENS


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_curl_line_asks_the_server_with_the_variable_of_the_key(serving: Started) -> None:
    line = serving.found["curl"]
    assert KEY not in line and "$VLLM_API_KEY" in line
    environment = {**os.environ, "VLLM_API_KEY": KEY, "NO_PROXY": "*"}
    said = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment, check=True)
    assert json.loads(said.stdout)["choices"][0]["message"]["content"]


@pytest.mark.long
@pytest.mark.slow
def test_when_the_engine_dies_everything_ends_with_one_line(serving: Started) -> None:
    """The last test on this server."""
    processes = family(serving.process)
    engine = next(p for p in processes if "EngineCore" in " ".join([*p.cmdline(), p.name()]))
    engine.kill()
    assert serving.process.wait(PATIENCE) == 1
    said = serving.process.stderr.read()  # type: ignore[union-attr]
    assert said.splitlines()[-1].startswith("error: vLLM's server died: ")
    assert "Traceback" not in said
    assert not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("sent", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.thorough)])
def test_whatever_ends_it_while_it_starts_leaves_nothing_behind(sent: signal.Signals, tmp_path: Path) -> None:
    process = start(tmp_path / "run")
    while len(family(process)) < 2:
        time.sleep(0.1)
    time.sleep(2)
    processes = family(process)
    process.send_signal(sent)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == (0 if sent == signal.SIGTERM else -signal.SIGKILL), said
    assert not psutil.wait_procs(processes, timeout=PATIENCE)[1]


@pytest.mark.parametrize("option", ["--no-such-flag", "--api_key", "--host=0.0.0.0", "--por"])
def test_an_option_behind_the_dashes_that_is_not_allowed_is_refused_before_anything_is_written(
    option: str, tmp_path: Path
) -> None:
    said = harness("serve", str(TINY_MATH), "--port", "0", "--out", str(tmp_path / "run"), "--", option, KEY)
    assert (said.returncode, said.stdout, len(said.stderr.splitlines())) == (2, "", 1)
    assert (
        said.stderr.startswith(f"error: {option.partition('=')[0]} is refused behind --: ") and KEY not in said.stderr
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--port", "--max-model-len", "--dtype"])
def test_a_key_is_not_in_what_is_said_of_a_wrong_command(option: str) -> None:
    for given in (["--api-key", KEY], [f"--api-key={KEY}"]):
        said = harness("serve", KEY, *given, option, KEY)
        assert said.returncode == 2 and KEY not in said.stderr + said.stdout and option in said.stderr
    said = harness("serve", f"no/{KEY}", "--debug", VLLM_API_KEY=KEY)
    assert said.returncode != 0 and "no/..." in said.stderr and KEY not in said.stderr


@pytest.mark.parametrize("key", [" ", "a b", "a\n", "\u00fc", "a\x00"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(UsageError, match="visible ASCII characters without blanks; give another"):
        check_address(Address(port=free_port(), api_key=key))


def test_no_front_end_that_knows_no_key_and_no_log_of_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VLLM_USE_RUST_FRONTEND", "VLLM_DEBUG_LOG_API_SERVER_RESPONSE", "VLLM_LOGGING_CONFIG_PATH"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("VLLM_API_KEY", "another")
    environment = server._environment(EngineSettings(), Address())
    assert (environment["VLLM_USE_RUST_FRONTEND"], environment["VLLM_DEBUG_LOG_API_SERVER_RESPONSE"]) == ("0", "False")
    assert not {"VLLM_API_KEY", "VLLM_LOGGING_CONFIG_PATH"} & environment.keys()


def test_a_port_in_use_is_refused_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="give another --port"):
            check_address(Address(port=taken.getsockname()[1]))
    check_address(Address(port=free_port()))


def test_others_can_reach_it_only_with_a_key() -> None:
    with pytest.raises(UsageError, match="add --api-key"):
        check_address(Address(host="0.0.0.0", port=free_port()))
    check_address(Address(host="0.0.0.0", port=free_port(), api_key="secret"))


def test_the_line_is_what_vllm_would_be_given_by_hand() -> None:
    config = EngineSettings(dtype="float32", max_model_len=512, kv_cache_bytes=1 << 26, max_num_seqs=16)
    line = command(open_model(TINY_MATH), "tiny", config, Address(port=1, api_key="secret"), ["--seed=1"])
    assert line[:3] == ["vllm", "serve", str(TINY_MATH)]
    assert "secret" not in line
    given = dict(itertools.pairwise(line))
    assert (given["--dtype"], given["--max-model-len"], given["--host"], given["--seed"]) == (
        "float32",
        "512",
        "127.0.0.1",
        "1",
    )
    assert "--enforce-eager" in line


def test_the_name_of_a_folder_is_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("--host=0.0.0.0").symlink_to(TINY_MATH)
    line = command(open_model(Path("--host=0.0.0.0")), "--host=0.0.0.0", EngineSettings(), Address(port=1))
    assert line[:3] == ["vllm", "serve", "./--host=0.0.0.0"] and "--host=0.0.0.0" not in line
    assert "--served-model-name=--host=0.0.0.0" in line


def test_a_log_is_private_and_so_is_the_one_before(tmp_path: Path) -> None:
    log = tmp_path / "run" / "server.log"
    log.parent.mkdir()
    log.write_text("before")
    log.chmod(0o644)
    with server._private(log) as output:
        output.write(b"now")
    assert (log.read_text(), log.with_suffix(".log.1").read_text()) == ("now", "before")
    assert [path.stat().st_mode & 0o777 for path in sorted(log.parent.iterdir())] == [0o600, 0o600]


@pytest.mark.parametrize("closed", [False, True])
def test_what_the_server_says_is_copied_without_keys_and_read_even_where_it_cannot_be_written(
    closed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", TOKEN)
    said = io.BytesIO(f"a {KEY}\n{TOKEN}".encode() + b"\xff\r\n" + f"x{KEY}".encode())
    with (tmp_path / "log").open("wb", buffering=0) as log:
        if closed:
            log.close()
        server._copy(said, log, KEY)
    assert said.closed
    assert (tmp_path / "log").read_bytes() == (b"" if closed else b"a ...\n...\xff\r\nx...")
