from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.config.dissociate_settings import DissociateConfig
from harness.config.goal_settings import GoalConfig
from harness.config.settings import (
    FIELDS,
    RecoveryConfig,
    RunConfig,
    SweepConfig,
    config_yaml,
    load_config,
    presets,
)
from harness.core.errors import UsageError
from harness.pipeline.resolve import name_problems


def test_no_two_settings_have_one_name_as_options_and_variables_go_by_the_bare_name() -> None:
    sections = (RecoveryConfig, SweepConfig, DissociateConfig, GoalConfig)
    fields = [name for model in (RunConfig, *sections) for name in model.model_fields]
    assert len(FIELDS) == len(fields) - len(sections)


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_described_in_a_sentence_that_says_what_no_value_means(name: str) -> None:
    text = FIELDS[name].description or ""
    assert text.endswith(".") and text[0].isupper()
    if FIELDS[name].default in (None, ()) and name != "epochs":
        assert "Default: " in text


WRONG = [-1, 1e9, 0.5, "x", "", [], [None], {"a": 1}, {1: "x"}, float("nan"), float("inf")]


@pytest.mark.parametrize("name", FIELDS)
def test_a_wrong_value_is_told_in_our_words(name: str) -> None:
    for value in WRONG:
        try:
            load_config(None, {name: value})
        except UsageError as error:
            said = str(error)
            assert said.startswith(f"bad settings: --{name.replace('_', '-')}: ") and said.count(name) <= 1, said
            assert not re.search("[Ii]nput should|validation|tuple|Value error", said), said


@pytest.mark.parametrize("name", ["ratio", "epochs", "learning_rate", "lora_dropout", "margin", "ratios"])
def test_a_number_is_finite(name: str) -> None:
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')}: 'inf' is not a finite number"):
        load_config(None, {name: "inf"})


def test_file_then_environment_then_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("ratio: 0.1\nseed: 1\nalign: 8\n")
    monkeypatch.setenv("HARNESS_SEED", "2")
    monkeypatch.setenv("HARNESS_ALIGN", "4")
    config = load_config(file, {"align": 1, "limit": None, "task": ()})
    assert (config.ratio, config.seed, config.align, config.limit, config.task) == (0.1, 2, 1, None, ())


def test_lists_in_the_environment_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CONCURRENCY", "1,8")
    monkeypatch.setenv("HARNESS_TASK", "mini_math,mini_code")
    config = load_config(None, {})
    assert (config.concurrency, config.task) == ((1, 8), ("mini_math", "mini_code"))


def test_every_wrong_setting_is_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("ratoi: 0.1\nseed: many\n")
    with pytest.raises(UsageError, match=r"(?s)seed.*ratoi|ratoi.*seed"):
        load_config(file, {})


def test_every_problem_is_told_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "model: tiny-math\nratoi: 0.1\nseed: many\nrecovery:\n  stpes: 3\n  steps: 0\n"
        "sweep: 3\nseed: 4\nconcurrency: [1, x]\n"
    )
    monkeypatch.setenv("HARNESS_LIMIT", "none")
    with pytest.raises(UsageError) as raised:
        load_config(file, {"align": 0})
    problems = str(raised.value).removeprefix("bad settings: ").split("; ")
    assert sorted(problems) == sorted(
        [
            f"{file}:8: seed is given twice, first on line 3",
            f"{file}:2: ratoi: no such setting, did you mean ratio?",
            f"{file}:5: recovery.stpes: no such setting, did you mean steps?",
            f"{file}:6: recovery.steps: 0 is below 1",
            f"{file}:7: sweep: 3 is not a section of settings",
            f"{file}:9: concurrency: 'x' is not a whole number",
            "HARNESS_LIMIT: 'none' is not a whole number",
            "--align: 0 is below 1",
        ]
    )


def test_yaml_that_cannot_be_read_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("ratio: 0.1\nseed: [1\n")
    with pytest.raises(UsageError, match=r"run\.yaml:3 cannot be read as YAML"):
        load_config(file, {})


@pytest.mark.parametrize("preset", [None, *presets()])
def test_what_is_printed_gives_the_same_settings_again(tmp_path: Path, preset: str | None) -> None:
    config = load_config(None, {"ratio": 0.3, "task": ("mini_math",), "steps": 7}, preset)
    file = tmp_path / "config.yaml"
    file.write_text(config_yaml(config))
    assert load_config(file, {}) == config
    assert load_config(file, {"ratio": 0.4}).ratio == 0.4


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"run\.yaml"):
        load_config(file, {})


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(tmp_path / "none.yaml", {})


def test_a_preset_gives_way_to_everything_else(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("calibration_samples: 12\n")
    assert load_config(None, {}, "paper").metric == "S" and load_config(None, {}, "paper").prompt_format == "plain"
    found = load_config(file, {"score_tokens": "all"}, "paper")
    assert (found.calibration_samples, found.score_tokens, found.metric, found.compensate) == (12, "all", "S", False)


def test_every_preset_is_valid() -> None:
    found = {name: load_config(None, {}, name).preset for name in presets()}
    assert found == {name: name for name in found} and {"quick", "laptop", "paper"} <= found.keys()


def test_keys_that_are_merged_in_are_not_given_twice_and_odd_ones_are_told(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("recovery: &r {steps: 5, samples: 4}\nsweep: {}\n")
    assert load_config(file, {}).recovery.steps == 5
    file.write_text("x: &r {steps: 5, samples: 4}\nrecovery: {<<: *r, steps: 7}\n")
    with pytest.raises(UsageError) as raised:
        load_config(file, {})
    assert "twice" not in str(raised.value) and f"{file}:1: x: no such setting" in str(raised.value)
    cases = {
        "1: 2\n": "1 is not the name of a setting",
        "on: 2\n": "True is not the name",
        "preset: 3\n": f"{file}:1: unknown preset 3",
        "ratio: 2024-13-45\n": "cannot be read",
        "recovery: {ratio: 0.1}\n": f"{file}:1: recovery.ratio: no such",
    }
    for text, said in cases.items():
        file.write_text(text)
        with pytest.raises(UsageError, match=re.escape(said)):
            load_config(file, {"ratio": 0.3})


def test_names_that_there_are_not_are_told_with_their_lines_beside_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "model: tiny-mat\ntask: [mini_math, mini_mth]\nmetric: smdd\nratio: 1.5\n"
        "sweep:\n  methods: [best, rmss+refit]\n"
    )
    with pytest.raises(UsageError) as raised:
        load_config(file, {}, names=name_problems)
    said = str(raised.value)
    for place, what in (
        (1, "unknown model"),
        (2, "unknown task 'mini_mth'"),
        (3, "unknown metric 'smdd'"),
        (4, "ratio: 1.5 is outside"),
    ):
        assert f"{file}:{place}: {what}" in said
    assert "unknown metric 'rmss'" in said


def test_a_section_of_a_preset_is_merged_with_the_files_and_not_replaced(tmp_path: Path) -> None:
    """Of recovery and sweep, what the file and the options leave out is the preset's."""
    preset = load_config(None, {}, "laptop")
    file = tmp_path / "run.yaml"
    file.write_text("preset: laptop\nrecovery: {steps: 7}\nsweep: {workers: 1}\n")
    found = load_config(file, {"seeds": "4"})
    changed = {"recovery": {"steps": 7}, "sweep": {"workers": 1, "seeds": (4,)}}
    for section, values in changed.items():
        expected = getattr(preset, section).model_copy(update=values)
        assert getattr(found, section) == expected != type(expected)(**values)


def test_a_setting_that_stood_below_the_sweep_is_refused_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "tp.yaml"
    file.write_text("sweep: {tensor_parallel: 2}\n")
    said = r"tp\.yaml:1: sweep\.tensor_parallel: .* write tensor_parallel at the top level"
    with pytest.raises(UsageError, match=said):
        load_config(file, {})
    file.write_text("tensor_parallel: 2\n")
    assert load_config(file, {}).tensor_parallel == 2


def test_names_with_spaces_and_values_of_another_type_do_not_confuse_the_check_of_names(tmp_path: Path) -> None:
    assert load_config(None, {"task": "mini_math, mini_code,"}, names=name_problems).task == ("mini_math", "mini_code")
    file = tmp_path / "settings.yaml"
    file.write_text("task: 5\ninclude_path: [a]\nsweep:\n  methods: 7\n")
    with pytest.raises(UsageError) as refused:
        load_config(file, {}, names=name_problems)
    assert str(refused.value) == (
        f"bad settings: {file}:1: task: 5 is not a list; {file}:2: include_path: ['a'] is not a path; "
        f"{file}:4: sweep.methods: 7 is not a list"
    )
