"""Rounds, rows and ratios against their definitions, computed another way; the engine itself is asked in
test_bench.py.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import MeasurementError
from harness.core.types.pruning import ModelShape
from harness.serving import timing
from harness.serving.timing import Pass, interleaved, serving_row, speed_ratios
from harness.serving.workload import Workload, random_prompts
from pruning.families import shape_of

CONFIG = {
    "model_type": "llama",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "vocab_size": 100,
    "tie_word_embeddings": True,
}
WORKLOAD = Workload("task", ((1, 2, 3), (4, 5)), output_tokens=3)


def answered(seconds: float = 2.0, answers: int = 2, tokens: int = 3) -> Pass:
    """Every request waits 0.1 s for its first token and has one each 0.2 s after it."""
    found = Pass(seconds, seconds / 2)
    for _ in range(answers):
        found.add(10, 5.0, [5.1 + 0.2 * i for i in range(tokens)], tokens)
    return found


def test_latencies_are_what_they_are_called() -> None:
    found = answered()
    assert found.ttft_ms == pytest.approx([100, 100])
    assert found.tpot_ms == pytest.approx([200, 200])
    assert found.itl_ms == pytest.approx([200] * 4)
    one = Pass()
    one.add(10, 0.0, [0.5], 1)
    assert (one.ttft_ms, one.tpot_ms, one.itl_ms) == ([500], [], [])  # no time per further token where there is none


def test_tokens_that_come_together_count_in_tpot_and_not_in_itl() -> None:
    found = Pass()
    found.add(1, 0.0, [1.0, 1.4], 5)
    assert found.tpot_ms == pytest.approx([100])
    assert found.itl_ms == pytest.approx([400])


def test_a_row_holds_medians_over_repeats_and_percentiles_over_requests() -> None:
    row = serving_row(2, [answered(1.0), answered(2.0), answered(4.0)])
    assert (row.output_tok_s, row.output_tok_s_repeats) == (3.0, (6.0, 3.0, 1.5))
    assert row.total_tok_s == (20 + 6) / 2.0
    assert row.output_tok_cpu_s == 6.0
    assert row.answers_s_repeats == (2.0, 1.0, 0.5)
    assert row.spread == (6.0 - 1.5) / 3.0
    assert (row.requests, row.tokens_per_answer, row.repeats) == (2, 3.0, 3)
    assert row.itl_ms == pytest.approx({"p50": 200, "p90": 200, "p99": 200})


def test_turns_go_there_and_back_after_a_warm_up_of_each_and_a_look_at_the_first() -> None:
    asked: list[str] = []

    def runner(name: str, seconds: float) -> object:
        def ask(level: int) -> Pass:
            asked.append(f"{name}{level}")
            return answered(seconds)

        return ask

    runners = {"a": runner("a", 1.0), "b": runner("b", 0.1)}
    found = interleaved(runners, [1, 8], 3, WORKLOAD)  # type: ignore[arg-type]
    assert asked == [f"{name}{level}" for level in (1, 8) for name in "ab" + "a" + "abbaab"]
    assert [len(passes) for passes in found["b"]] == [3, 3]


def test_short_passes_are_made_longer_by_the_first_variant_alike_for_all() -> None:
    counts = {"a": 0, "b": 0}

    def runner(name: str, seconds: float) -> object:
        def ask(_level: int) -> Pass:
            counts[name] += 1
            return answered(seconds)

        return ask

    workload = Workload("task", ((1,),), 3, least_seconds=1.0)
    found = interleaved({"a": runner("a", 0.3), "b": runner("b", 0.01)}, [1], 2, workload)  # type: ignore[arg-type]
    assert counts == {"a": 2 + 2 * 4, "b": 1 + 2 * 4}
    assert found["a"][0][0].seconds == pytest.approx(1.2)
    assert len(found["b"][0][1].answers) == 8


def test_answers_of_another_length_than_asked_are_no_result() -> None:
    with pytest.raises(MeasurementError, match="answers of 2 tokens instead of 3"):
        interleaved({"a": lambda _: answered(tokens=2)}, [1], 1, WORKLOAD)
    stop_at_eos = Workload("task", ((1,),), 3, stop_at_eos=True)
    assert interleaved({"a": lambda _: answered(tokens=2)}, [1], 1, stop_at_eos)


def shape(width: int) -> ModelShape:
    dense = replace(shape_of(CONFIG), parameters=10_000)
    narrow = shape_of({**CONFIG, "intermediate_size": width})
    return replace(narrow, parameters=dense.pruned_parameters((width, width)))


def test_ratios_are_over_pairs_against_the_first_with_the_ideal_beside() -> None:
    rows = {
        "dense": [serving_row(4, [answered(2.0), answered(2.0)])],
        "pruned": [serving_row(4, [answered(1.0), answered(1.25)])],
    }
    shapes = {"dense": shape(16), "pruned": shape(8)}
    wall, cpu = speed_ratios(rows, shapes, WORKLOAD, number=4)
    assert (wall.variant, wall.baseline, wall.concurrency, wall.quantity, wall.pairs) == (
        "pruned",
        "dense",
        4,
        "output_tok_s",
        2,
    )
    assert wall.ratio == pytest.approx((2.0 * 1.6) ** 0.5)
    assert wall.ci_low and wall.ci_high and wall.ci_low < 1.6 < 2.0 < wall.ci_high
    assert cpu.quantity == "output_tok_cpu_s"
    assert wall.ideal_flops > 1 and wall.ideal_bytes > 1
    stop_at_eos = speed_ratios(rows, shapes, Workload("task", ((1,),), 3, stop_at_eos=True), number=4)
    assert [ratio.quantity for ratio in stop_at_eos] == ["output_tok_s", "output_tok_cpu_s", "answers_s"]


@given(st.integers(1, 50), st.integers(2, 300), st.integers(5, 1000))
def test_random_prompts_are_around_the_length_and_within_the_vocabulary(
    count: int, tokens: int, vocabulary: int
) -> None:
    prompts = random_prompts(count, tokens, vocabulary)
    assert len(prompts) == count
    assert all(tokens // 2 <= len(prompt) <= 1.5 * tokens for prompt in prompts)
    assert all(0 <= token < vocabulary for prompt in prompts for token in prompt)
    assert prompts == random_prompts(count, tokens, vocabulary)


def test_a_round_asks_as_many_as_go_on_at_a_time_and_four_at_least() -> None:
    assert [len(WORKLOAD.requests_for(level)) for level in (1, 4, 9)] == [4, 4, 9]
    assert WORKLOAD.requests_for(4) == [(1, 2, 3), (4, 5), (1, 2, 3), (4, 5)]
    assert len(Workload("task", ((1,),), 3, requests=2).requests_for(9)) == 2
    assert WORKLOAD.prompt_tokens == round(np.mean([3, 2]))
    assert WORKLOAD.context >= 3 + 3


def test_answers_of_one_token_have_no_time_between_tokens() -> None:
    row = serving_row(2, [answered(tokens=1)])
    assert row.tpot_ms == {"p50": None, "p90": None, "p99": None} == row.itl_ms


def test_on_cuda_no_figure_is_per_cpu_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that waits for the GPU spins, and its time says nothing."""
    monkeypatch.setattr(timing, "device_name", lambda: "cuda")
    rows = {name: [serving_row(4, [answered(2.0), answered(1.5)])] for name in ("dense", "pruned")}
    assert rows["dense"][0].output_tok_cpu_s is None and rows["dense"][0].output_tok_cpu_s_repeats == ()
    found = speed_ratios(rows, {"dense": shape(16), "pruned": shape(8)}, WORKLOAD, number=2)
    assert [ratio.quantity for ratio in found] == ["output_tok_s"]
