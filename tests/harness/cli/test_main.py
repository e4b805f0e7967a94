"""The command line as a user meets it: exit codes, one line of error, nothing half-written."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from harness.cli.main import cli
from harness.cli.options import NO_OPTION, typed_command
from harness.config.settings import FIELDS, preset_text, presets
from harness.core import memory
from harness.publish.trackers import TRACKERS
from scripts.write_schema import CONFIG
from tests.support.cli import harness, in_a_process
from tests.support.runs import RUN, VARIANT


def commands(group: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        yield from commands(command, (*above, name)) if hasattr(command, "commands") else [((*above, name), command)]


COMMANDS = dict(commands(cli))


@pytest.mark.slow
def test_a_real_process_says_the_same() -> None:
    for arguments in ((), ("run", "--ratio", "2"), ("runn",), ("models", "--json")):
        real, here = in_a_process(*arguments), harness(*arguments)
        assert (real.returncode, real.stdout, real.stderr) == (here.returncode, here.stdout, here.stderr)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_help_page_fits_80_columns_and_wraps_no_example(command: tuple[str, ...]) -> None:
    page = CliRunner().invoke(cli, [*command, "--help"], terminal_width=80).output
    lines = page.splitlines()
    assert "--debug" in page and max(map(len, lines)) <= 80 and "\x1b" not in page
    examples = [line.rstrip() for line in (COMMANDS[command].help or "").splitlines() if line.startswith("harness ")]
    shown = {line.strip() for line in lines}
    assert not [example for example in examples if example not in shown]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_option_says_what_it_is(command: tuple[str, ...]) -> None:
    assert COMMANDS[command].help
    assert not [
        option.name for option in COMMANDS[command].params if option.param_type_name == "option" and not option.help
    ]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_option_stands_unbroken_on_its_line(command: tuple[str, ...]) -> None:
    page = CliRunner().invoke(cli, [*command, "--help"], terminal_width=80).output.splitlines()
    names = [name for p in COMMANDS[command].params if p.param_type_name == "option" for name in p.opts]
    shown = [re.match(r"│ [* ]{0,3}(-[a-z], )?(--[\w-]+)(?= |│)", line) for line in page]
    found = [name.strip(", ") for match in shown if match for name in match.groups("") if name]
    assert sorted(names) == sorted(name for name in found if name not in ("-h", "--help"))
    negations = [word.strip(".") for line in page for word in line.split() if word.startswith("--no-")]
    assert {*negations} <= {name for p in COMMANDS[command].params for name in p.secondary_opts}


def test_every_setting_has_an_option_that_shows_its_description_choices_and_default() -> None:
    options = {option.name: option for option in COMMANDS["config", "show"].params}
    assert FIELDS.keys() - options.keys() == {*NO_OPTION} - {"recovery", "sweep", "dissociate", "goal"}
    for name, field in FIELDS.items():
        if name in NO_OPTION:
            continue
        option, (what, _, unset) = options[name], field.description.partition(" Default: ")
        assert option.help.startswith(what) and option.help.endswith(".") and option.opts[0].startswith("--")
        assert option.default is None and (not unset or f"Default: {unset}" in option.help)
        for choice in getattr(option.type, "choices", ()):
            assert choice in option.help
        if isinstance(field.default, int | float | str) and not isinstance(field.default, bool):
            assert f"Default: {field.default}." in option.help.replace("Default: 0.", "Default: 0.0.") + option.help


def test_a_command_shows_the_defaults_that_it_uses() -> None:
    shown = {option.name: option.help for option in COMMANDS["bench",].params}
    assert "Default: 1,8,32,128." in shown["concurrency"] and "Default: 5." in shown["repeats"]


def test_presets_and_trackers_are_offered_as_they_are_there() -> None:
    offered = {option.name: option.type.choices for option in COMMANDS["run",].params if option.name == "preset"}
    assert list(offered["preset"]) == list(presets())
    assert list(next(o for o in COMMANDS["track",].params if o.name == "kind").type.choices) == list(TRACKERS)


@pytest.mark.parametrize(
    ("arguments", "same"),
    [
        (("-t", "mini_math,mini_code"), ("-t", "mini_math", "-t", "mini_code")),
        (("--concurrency", "1,8"), ("--concurrency", "1", "--concurrency", "8")),
        (("--seeds", "1", "--seeds", "2"), ("--seeds", "1, 2")),
    ],
)
def test_a_list_is_given_with_commas_or_by_repeating(arguments: tuple[str, ...], same: tuple[str, ...]) -> None:
    first, second = (harness("config", "show", *words) for words in (arguments, same))
    assert first.stdout == second.stdout != harness("config", "show").stdout


def test_a_switch_of_a_file_is_turned_off_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("sequential: true\ncompensate: true\n")
    shown = harness("config", "show", "--config", "run.yaml", "--no-sequential", "--no-compensate", cwd=tmp_path)
    assert "sequential: false" in shown.stdout and "compensate: false" in shown.stdout


def test_answers_go_to_standard_output_and_a_row_is_a_line(tmp_path: Path) -> None:
    """What `harness models | grep qwen` and `harness metrics | grep best` find."""
    for command, found in [("models", "qwen-7b"), ("metrics", "best"), ("tasks", "gsm8k"), ("presets", "laptop")]:
        said = harness(command)
        assert said.stderr == "" and [line for line in said.stdout.splitlines() if line.startswith(f"{found} ")]
        assert not {"│", "┃", "\x1b"} & {*said.stdout}
    assert harness("doctor").stdout.startswith("What is here\n")
    planned = harness("plan", "qwen-7b", "--device", "24GiB", cwd=tmp_path)
    assert planned.stderr == "" and len(planned.stdout.splitlines()) == 10


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("metrics",), ("run", "--help"), ("config", "show")], ids=" ".join)
def test_a_reader_that_stops_early_is_no_error(arguments: tuple[str, ...]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    said = process.stderr.read()
    assert (process.wait(), said) == (141, "")


def test_a_config_file_has_a_schema_that_editors_read() -> None:
    import jsonschema

    schema = json.loads(harness("config", "schema").stdout)
    described = {
        **schema["properties"],
        **schema["$defs"]["RecoveryConfig"]["properties"],
        **schema["$defs"]["SweepConfig"]["properties"],
        **schema["$defs"]["DissociateConfig"]["properties"],
        **schema["$defs"]["GoalConfig"]["properties"],
    }
    assert all(described[name]["description"] == field.description for name, field in FIELDS.items())
    for name in presets():
        jsonschema.validate(yaml.safe_load(preset_text(name)), schema)
    with pytest.raises(jsonschema.ValidationError, match="'ratoi' was unexpected"):
        jsonschema.validate({"ratoi": 0.2}, schema)
    assert CONFIG.read_text(encoding="utf-8") == harness("config", "schema").stdout, "run `make generate`"


def test_a_fresh_folder_has_no_runs_and_that_is_no_error(tmp_path: Path) -> None:
    first = harness("runs", cwd=tmp_path)
    assert (first.returncode, first.stdout) == (0, "no runs yet in runs; harness run makes one\n")
    (tmp_path / "runs").mkdir()
    assert harness("runs", cwd=tmp_path).stdout == first.stdout
    assert "no such run in runs" in harness("runs", "--state", "killed", cwd=tmp_path).stdout
    assert harness("runs", "elsewhere", cwd=tmp_path).returncode == 2


def test_a_folder_of_runs_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "run.json").write_text("{}")
    said = harness("inspect", "runs", cwd=tmp_path)
    assert said.stderr == "error: runs has no run.json; give one of the runs in it: a\n"


@pytest.mark.slow
def test_ratio_0_is_told_to_remove_nothing() -> None:
    assert "warning: ratio 0 removes nothing" in harness("run", "--ratio", "0", "--dry-run").stderr


def test_alone_it_explains_itself() -> None:
    found = harness()
    assert found.returncode == 0 and found.stderr == ""
    assert all(" ".join(name).split()[0] in found.stdout for name in COMMANDS) and "harness doctor" in found.stdout


@pytest.mark.slow
def test_the_shell_is_offered_commands_models_tasks_and_metrics() -> None:
    def offered(words: str) -> list[str]:
        found = in_a_process(
            _HARNESS_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(len(words.split(" ")) - 1)
        )
        return [line.split(",")[1] for line in found.stdout.splitlines()]

    assert offered("harness r") == ["recover", "report", "run", "runs"]
    assert offered("harness run --model qwen") == ["qwen-1.5b", "qwen-7b"]
    assert offered("harness eval x --task mini_") == ["mini_math", "mini_facts", "mini_code"]
    assert offered("harness run --metric S") == ["S"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_the_shell(shell: str) -> None:
    script = CliRunner().invoke(cli, ["completion", shell]).output
    assert "_HARNESS_COMPLETE" in script and shell in script
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=script, text=True, capture_output=True).returncode == 0


def test_help_imports_nothing_heavy() -> None:
    """What keeps `harness --help` fast, without a clock: no array or tensor library is loaded."""
    heavy = "('numpy', 'torch', 'pydantic', 'altair', 'yaml')"
    code = f"import sys; import harness.cli.main; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "--model", "tiny-mathh"], 2, "unknown model 'tiny-mathh'; did you mean tiny-math?"),
        (["run", "--task", "mini_maths"], 2, "unknown task 'mini_maths'; did you mean mini_math?"),
        (["run", "--ratio", "1.0"], 2, "outside [0, 1)"),
        (["run", "--ratio", "-0.1"], 2, "outside [0, 1)"),
        (["run", "--ratio", "0.99"], 2, "leaves no neuron of 640 at alignment 16"),
        (["run", "--metric", "sdm"], 2, "unknown metric 'sdm'; did you mean S?"),
        (["run", "--limit", "0"], 2, "limit"),
        (["run", "--seed", "-1"], 2, "seed"),
        (["run", "--concurrency", "0"], 2, "concurrency"),
        (["run", "--task", "gsm8k"], 2, "asks for answers of 1024 tokens and the model's context is 512"),
        (["run", "--method", "best"], 2, "'best' is not one of"),
        (["run", "--config", "none.yaml"], 2, "none.yaml cannot be read"),
        (["plan", "s.safetensors", "--out", "p", "--limit", "5"], 2, "--limit is a setting of --predict"),
        (["plan", "qwen-7b", "--device", ""], 2, "unknown device ''"),
        (
            ["prune", "m", "p", "--out", "o", "--engine-arg", "block_size=32"],
            2,
            "--engine-arg is a setting of --verify",
        ),
        (["vocabulary", "m", "--size", "9", "--out", "o", "--tensor-parallel", "2"], 2, "is a setting of --verify"),
        (["serve", "tiny-math", "--port", "99999"], 2, "99999 is not in the range"),
        (["serve", "tiny-math", "--max-model-len", "9999"], 2, "more than the 512 tokens"),
        (["plan", "tiny-math", "--predict", "--device", "24GiB"], 2, "leave out --device"),
        (["plan", "tiny-math", "--predict", "--out", "p"], 2, "--predict writes nothing; leave out --out"),
        (["plan", "tiny-math", "--device", "24GiB", "--out", "p"], 2, "--device writes nothing; leave out --out"),
        (["plan", "tiny-math", "--device", "24GiB", "--context", "-5"], 2, "-5 is not in the range x>=1"),
        (["plan", "s.safetensors", "--out", "p", "--context", "64"], 2, "--context belongs to --device"),
        (["plan", "tiny-math", "--predict", "--task", "gsm8k_answers"], 2, "give another --task"),
        (["plan", "none.safetensors", "--out", "p"], 2, "make one with `harness score`"),
        (["prune", "tiny-math", "none.safetensors", "--out", "c"], 2, "make one with `harness plan`"),
        (["report", "nowhere"], 2, "nowhere has no run.json"),
        (["runn"], 2, "No such command"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    result = harness(*arguments, cwd=tmp_path)
    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_other_architectures_damaged_and_weightless_models_are_refused(edited_config: Any) -> None:
    for change, message in [
        ({"model_type": "bert"}, "'bert' is not known"),
        ({"num_local_experts": 8}, "mixture of experts"),
    ]:
        folder = edited_config(**change)
        result = harness("run", "--model", str(folder), "--task", "mini_math", cwd=folder)
        assert (result.returncode, "Traceback" in result.stderr) == (1, False)
        assert message in result.stderr
    folder = edited_config()
    result = harness("run", "--model", str(folder), "--task", "mini_math", cwd=folder)
    assert result.returncode == 1 and "has no model.safetensors; " in result.stderr
    assert [p.name for p in folder.iterdir()] == ["config.json"]


@pytest.mark.slow
def test_debug_shows_the_traceback() -> None:
    assert "Traceback" in in_a_process("run", "--ratio", "2", "--debug").stderr


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("mini_math", "Qwen/Qwen2.5-Math-7B-Instruct"),
        ("mini_code", "Qwen/Qwen2.5-Coder-7B-Instruct"),
    ],
)
def test_a_dry_run_of_7b_needs_no_weights(
    task: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 24 * 10**9)
    result = harness("run", "--model", "qwen-7b", "-t", task, "--ratio", "0.2", "--dry-run", "--json", cwd=tmp_path)
    found = json.loads(result.stdout)
    assert found["model"] == model
    assert found["intermediate_size"] == {"dense": 18944, "pruned": 15104}
    removed = 28 * 3 * 3584 * (18944 - 15104)
    assert found["parameters"] == {"dense": 7_615_616_512, "pruned": 7_615_616_512 - removed}
    assert found["weight_bytes"]["pruned"] == found["disk_bytes"] == 2 * (7_615_616_512 - removed)
    assert found["kv_bytes_per_token"] == 57_344
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_speaks_to_people_too() -> None:
    result = harness("run", "--dry-run")
    assert result.returncode == 0 and "640 -> 512" in result.stdout and result.stderr == ""
    assert re.search(r"^would write to +runs/tiny-math-mini_math-selective-best-0\.2$", result.stdout, re.MULTILINE)


@pytest.mark.long
@pytest.mark.slow
def test_score_plan_prune_one_by_one(tmp_path: Path) -> None:
    """The three commands on the embedded model; the paper's S keeps other neurons than the importance does."""
    scored = harness(
        "score", "tiny-math", "--calibration-samples", "8", "--out", "s.safetensors", "--json", cwd=tmp_path
    )
    assert json.loads(scored.stdout)["n_target"] == 8, scored.stderr
    for metric in ("smd", "rms"):
        planned = harness(
            "plan",
            "s.safetensors",
            "--ratio",
            "0.1",
            "--metric",
            metric,
            "--align",
            "1",
            "--out",
            f"{metric}.p",
            "--json",
            cwd=tmp_path,
        )
        assert json.loads(planned.stdout)["intermediate_size"] == [640, 576]
    assert (tmp_path / "smd.p").read_bytes() != (tmp_path / "rms.p").read_bytes()
    pruned = harness("prune", "tiny-math", "smd.p", "--out", "out", "--json", cwd=tmp_path)
    assert json.loads(pruned.stdout)["checkpoint"] == "out"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["intermediate_size"] == 576


def test_config_show_prints_what_a_run_would_take(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("ratio: 0.1\nseed: 3\n")
    found = harness(
        "config", "show", "--config", "run.yaml", "--ratio", "0.3", "--steps", "5", cwd=tmp_path, HARNESS_ALIGN="4"
    )
    shown = yaml.safe_load(found.stdout)
    assert (shown["ratio"], shown["seed"], shown["align"], shown["recovery"]["steps"], shown["model"]) == (
        0.3,
        3,
        4,
        5,
        "tiny-math",
    )


def test_json_is_json_everywhere(tmp_path: Path) -> None:
    assert json.loads(harness("presets", "laptop", "--json").stdout)["limit"] == 300
    assert Path(json.loads(harness("tasks", "--path", "--json").stdout)["path"]).is_dir()
    assert isinstance(json.loads(harness("doctor", "--json").stdout), list)
    (tmp_path / "runs").mkdir()
    assert json.loads(harness("runs", "--json", cwd=tmp_path).stdout) == []


def test_an_error_does_not_command_the_terminal(tmp_path: Path) -> None:
    pruned = {**VARIANT, "name": "\x1b[2Jx\x07", "method": "random", "checkpoint": "c"}
    (tmp_path / "run.json").write_text(json.dumps({**RUN, "variants": [pruned]}))
    found = harness("push", str(tmp_path), "--variant", "y", "--yes")
    assert found.returncode == 2 and "\x1b" not in found.stderr and "\\u001b[2Jx" in found.stderr


def test_no_format_is_no_report(tmp_path: Path) -> None:
    found = harness("report", str(tmp_path), "--format", " ,")
    assert found.returncode == 2 and "no format given" in found.stderr


def test_every_unknown_name_is_told_at_once() -> None:
    found = harness("run", "--model", "tiny-mat", "--task", "mini_mth", "--metric", "smdd")
    assert found.returncode == 2 and found.stderr.count("did you mean") == 3 and len(found.stderr.splitlines()) == 1


def test_models_and_tasks_are_listed() -> None:
    assert {row["name"] for row in json.loads(harness("models", "--json").stdout)} >= {
        "tiny-math",
        "smollm2-135m",
        "qwen-1.5b",
        "qwen-7b",
    }
    assert {row["name"] for row in json.loads(harness("tasks", "--json").stdout)} >= {"mini_math", "gsm8k_boxed"}
    path = Path(harness("tasks", "--path").stdout.strip())
    assert (path / "mini_math" / "mini_math.yaml").exists()


@pytest.mark.parametrize("given", [["--api-key", "secret"], ["--api-key=secret"]])
def test_a_key_does_not_get_into_run_json(given: list[str]) -> None:
    command = typed_command(["serve", "my model", *given, "--port", "1"])
    assert "secret" not in command
    assert command.startswith("harness serve 'my model' --api-key") and command.endswith(" --port 1")
