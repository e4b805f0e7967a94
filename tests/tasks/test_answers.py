"""What counts as the final answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.answers import boxes, final_answer, hashes, statements
from tasks.numbers import number_in, same_number

ALL = (boxes, hashes, statements)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{18}.", "18"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed{\frac{3}{4}}", r"\frac{3}{4}"),
        (r"\boxed{\text{a{b} 4}}", r"\text{a{b} 4}"),
        (r"\boxed{\left\{4\right\}}", r"\left\{4\right\}"),
        (r"\boxed {7}", "7"),
        (r"\boxed 7 is it", "7"),
        ("\\boxed{18\nThat is all.", "18"),
        (r"\boxed{5} then \boxed{18", "18"),
        (r"\boxed{5} then \boxed{}", "5"),
        (r"\boxed{yes}", None),
        (r"\boxed{1\ 234}", r"1\ 234"),
        (r"\boxed{2\frac{1}{2}}", r"2\frac{1}{2}"),
        (r"\boxed{3, 4}", None),
        (r"\boxed{18\text{ dollars for 7 days}}", "18"),
        (r"\boxed{18/\text{day}}", r"18/\text{day}"),
        (r"\boxed{}", None),
        (r"\fbox{18}", "18"),
        (r"\Boxed{18}", "18"),
        ("so boxed{18}", "18"),
        ("\x08oxed{18}", "18"),
        (r"\boxed{½}", "½"),
        (r"\boxed{5!}", None),
        (r"\boxed{共18元}", "共18元"),
        ("18", None),
    ],
)
def test_boxed(text: str, expected: str | None) -> None:
    assert final_answer(text, (boxes,)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#### 14", "14"),
        ("#### 1\n#### 2\n", "2"),
        ("#### 5 apples", "5 apples"),
        ("####", None),
        ("14", None),
        ("#### Step 1\n#### Step 2", None),
        ("#### 1. Add\n#### 2. Divide", None),
        ("#### Answer: **18**", "Answer: **18**"),
        ("#### x = 18", "x = 18"),
        ("#### 5 + 13 = 18", "5 + 13 = 18"),
        ("####\n\n18", "18"),
        ("##### 18", "18"),
        (r"#### \(18\)", r"\(18\)"),
        ("#### <18>", "<18>"),
        ("#### <answer> 18", "<answer> 18"),
        ("#### 18!", "18"),
        ("#### [Answer]: 18", "[Answer]: 18"),
        ("####\nStep 1", None),
        ("#### Step 2: 9 eggs", None),
        ("#### Janet makes $18", None),
    ],
)
def test_hash(text: str, expected: str | None) -> None:
    assert final_answer(text, (hashes,)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 + 2 = 4\nA: 4", "4"),
        ("**Answer:** 4 apples", "4 apples"),
        ("Final answer: **4**", "4**"),
        ("So the answer is 4.", "4."),
        ("The answer is 18. Let me think... maybe 20", "18. Let me think... maybe 20"),
        ("I do not know, 4 or so", None),
        ("A: nobody knows", None),
        ("A = 5\nB = 7\nTotal: A+B = 12", None),
        ("A: There are 15 trees originally.\nThen 21.\nSo 21-15=6.", None),
        ("A: Tom has 18 apples left.", "Tom has 18 apples left."),
        ("Your answer is 5, but the answer is 18", "18"),
        ("The answer is not 18.", None),
        ("Answer:\n\n18", "18"),
        ("### Answer: 18", "18"),
        ("### Final Answer\n\n18", "18"),
        ("The answer is:\n18", "18"),
        ("<think>7</think><answer>18</answer>", "18"),
        ("The answer is 18.\n\nQ: How many cars?\nA: 5. The answer is 5.", "18."),
        ("The answer is $18/day", "$18/day"),
        ("The answer is:\n\\[\n18\n\\]", "18"),
        ("Answer: $$\n18\n$$", "18"),
        ("Answer:\n```\n18\n```", "18"),
        ("**Final Answer**\n\n18 dollars", "18 dollars"),
        ("**Final Answer** 18", "18"),
        ("Final Answer\n18", "18"),
        ("The answer is 18! Great.", "18 Great."),
        (r"The answer is $5!$", None),
        ('{"answer": 18}', "18"),
        ('```json\n{"steps": "9*2", "final_answer": "$18"}\n```', "$18"),
        ("{'answer': '18 eggs', 'unit': 3}", "18 eggs"),
        ('{"answer": null}', None),
        ("每个两元。答案是：18。", "18。"),
        ("**答案：** 18", "18"),
        ("最终答案为 18 元", "18 元"),
        ("答案不是 18", None),
        ("#### Janet makes $18", "Janet makes $18"),
        ("#### Janet makes $18\nand more", None),
        ("### 18", "18"),
        ("### 18 eggs\nand more", None),
        ("## 2. Costs", None),
    ],
)
def test_statements(text: str, expected: str | None) -> None:
    assert final_answer(text, (statements,)) == expected


QUESTIONS = (
    "Problem: ",
    "**Question:** ",
    "**Problem 2:** ",
    "Question 2: ",
    "Question 1: ",
    "Problem 2. ",
    "问题：",
    "Q2: ",
    "### Question: ",
    "## Question 3\n",
    "**Question**\n",
    "> Question: ",
    "Human: ",
    "USER: ",
    "### Instruction:\n",
    "Next question: ",
)
TURNS = (
    "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
    "<|im_end|>\n<|im_start|>user\n",
    "<end_of_turn>\n<start_of_turn>user\n",
    "</s>[INST] ",
    "<|end|><|user|>",
    "<|endoftext|>",
    "<｜end▁of▁sentence｜><｜User｜>",
)


@pytest.mark.parametrize("mark", [*("\n\n" + question for question in QUESTIONS), *TURNS])
@pytest.mark.parametrize("answer", ["#### {}", r"So \boxed{{{}}}", "The answer is {}."])
def test_an_answer_ends_where_a_turn_or_the_next_question_begins(mark: str, answer: str) -> None:
    text = f"Nine times 2.\n{answer.format(18)}{mark}A stall sells 3 pears.\n{answer.format(3)}"
    assert same_number(final_answer(text, ALL), "18")
    assert same_number(final_answer(text, ALL, truncated=True), "18")


@pytest.mark.parametrize(
    "text",
    [
        "**Problem:** Janet has 3 hens.\n**Solution:** 9 * 2\n#### 18",
        "Let me repeat.\nQuestion: Janet?\n#### 18\n\nQuestion: Bob?\n#### 3",
        "Question 1: How many?\nAnswer: 5\nQuestion 2: How much?\nAnswer: 18",
        "We divide it.\nQuestion 1: How many?\nAnswer: 5\nQuestion 2: How much?\nAnswer: 18",
        "<|im_start|>assistant\n#### 18<|im_end|>\n<|im_start|>user\n#### 3",
        "<s> #### 18</s>",
        "#### 17\nThe problem: one is missing.\n#### 18",
    ],
)
def test_a_repeated_question_and_the_steps_own_questions_end_nothing(text: str) -> None:
    assert same_number(final_answer(text, ALL), "18")


def test_a_box_counts_before_words_behind_it() -> None:
    assert final_answer(r"\boxed{17}. Wait. The correct answer is 18.", ALL) == "17"


def test_the_asked_form_comes_first_and_another_mark_counts_where_it_is_missing() -> None:
    assert final_answer("#### 3\n\\boxed{4}", (boxes, hashes)) == "4"
    assert final_answer("#### 3\n\\boxed{4}", (hashes, boxes)) == "3"
    assert final_answer("A: 3", ALL) == "3"


@pytest.mark.parametrize("end", [r"\boxed{12", "#### 12", "A: 12", "the answer is 12"])
def test_half_a_number_at_the_token_limit_is_no_answer(end: str) -> None:
    assert same_number(final_answer(f"so\n{end}", ALL), "12")
    assert final_answer(f"so\n{end}", ALL, truncated=True) is None
    assert final_answer(f"{end}\nand then it went on", ALL, truncated=True) is not None


@pytest.mark.parametrize(
    "text", [r"\boxed{18} \boxed{18} \box", r"So \boxed{18}. Let me check this aga", "#### 18\n\nQuestion: And"]
)
def test_what_was_whole_before_the_token_limit_stays_an_answer(text: str) -> None:
    assert final_answer(text, ALL, truncated=True) == "18"


@pytest.mark.parametrize("text", [r"so \boxed{\frac{1}", r"\boxed{\text{12}", "#### 18."])
def test_what_was_still_open_is_none(text: str) -> None:
    assert final_answer(text, ALL, truncated=True) is None


SHAPES = (
    r"\boxed{{{n}}}",
    r"\boxed{{\${n:,}}}",
    r"\boxed{{{n}\%}}",
    r"\boxed{{{n} \text{{ apples}}}}",
    r"\boxed{{\frac{{{twice}}}{{2}}}}",
    r"\boxed{{x = {n:,}.00}}",
    r"\boxed{{-1}} no, \boxed{{{n}}}",
    r"\boxed{{{n}",
    "#### {n}",
    "#### ${n:,}",
    "A: {n}",
    "**Answer:** {n:,} dollars",
    "The answer is {n}.",
    r"\[ \boxed{{{{{n}}}}} \]",
    r"\boxed{{{n}\,\mathrm{{kg}}^2}}",
)


@given(st.integers(-9999, 9_999_999), st.sampled_from(SHAPES), st.text(max_size=40))
def test_every_shape_gives_its_number_and_no_other(n: int, shape: str, before: str) -> None:
    def found(value: int) -> str | None:
        return final_answer(f"{before}\n" + shape.format(n=value, twice=2 * value), ALL)

    assert same_number(found(n), str(n)) and not same_number(found(n + 1), str(n))


@given(
    st.text()
    | st.lists(
        st.sampled_from(["\\boxed{", "}", "####", "A:", "\\frac", "{", "1", ",", "/", "-", ".", "\n", "=", "^"])
    ).map("".join)
)
def test_any_text_is_read_without_an_exception(text: str) -> None:
    for truncated in (False, True):
        answer = final_answer(text, ALL, truncated)
        assert answer is None or number_in(answer) is not None
