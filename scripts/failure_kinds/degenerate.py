"""Answers that are stuck or broken as text: loops, loops with a counter, loops that go on into other text, gibberish,
salad.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from scripts.failure_kinds.labelled import Groups

_OTHER = (
    "The mill stands by the road that leads to the harbour, and in the morning carts bring rye, barley and oats. A "
    "clerk writes down each sack; his daughter weighs them, and the miller pays at noon when the bell has rung."
)
_START = "To find the answer, add the two prices and take away the discount of 4 dollars.\n"
_RANDOM = random.Random(19)


def _mixed(units: Sequence[str], n: int, between: str = " ") -> str:
    return between.join(_RANDOM.choice(units) for _ in range(n))


EXACT: Groups = {  # as they look where the token limit cut them
    "exact": [
        _START + "So the price is 7 dollars. " * 24,
        _START + "and then " * 60,
        _START + "the the the the " * 30,
        "I think that I think that " * 20,
        "\\boxed{7}\n" * 40,
        "#### 7\n#### 7\n" * 20,
        "The answer" + "\n" * 400,
        "The answer" + " \n" * 250,
        "The price is 0." + "0" * 300,
        "9" * 256,
        "    return x\n" * 30,
        "    x = x + 1\n    y = y + x\n" * 12,
        "</p><p>" * 50,
        "\\frac{1}{" * 40,
        "if (a) { if (b) { " * 25,
        "))))))" * 60,
        "-" * 500,
        "!!!" * 120,
        "🙂" * 240,
        "好" * 120,
        "答案是七。" * 30,
        "我们可以得到结果，" * 22,
        "そして、次の日も。" * 20,
        "정답은 칠이다. " * 25,
        "Ответ семь. " * 30,
        "الجواب سبعة. " * 30,
        _START + (_OTHER + "\n") * 4,
        _OTHER + (" " + _OTHER[:150]) * 3,
        "Wait, let me check. " * 5,
        "Human: hello\nAssistant: hello\n" * 14,
        "```python\n```\n" * 30,
        "a, b, c, d, e, f, g, h, " * 16,
        "import os\nimport sys\n" * 20,
        "x" * 300,
        "<|im_start|>" * 30,
    ]
}
ENDED: Groups = {  # the same where the model wrote its end token at last, or a stop word came
    "exact, ended by itself": [
        _START + "So the price is 7 dollars. " * 24,
        "I am sorry, I cannot help with that. " * 20,
        "Thank you for your help. " * 30,
        (_OTHER + "\n") * 6,
        "答案是七，因为三加四等于七。" * 24,
        "    total = total + price\n    count = count + one\n" * 20,
        "Please let me know. Have a nice day! " * 16,
        "The cat sat on the mat and the dog sat on the log. " * 10,
        "Это правильный ответ на вопрос. " * 20,
        "-" * 4000,
        "0" * 3000,
        "\n" * 3000 + "x" + "\n" * 3000,
    ]
}
COUNTERS: Groups = {
    "counter": [
        "def f(n):\n" + "".join(f"    elif n == {n}:\n        return {n * 3}\n" for n in range(40)),
        "return " + " + ".join(f"values[{n}]" for n in range(60)),
        "".join(f"assert cube({n}) == {n**3}\n" for n in range(45)),
        "".join(f"第{n}个问题：一共有多少个苹果？\n" for n in range(1, 40)),
        "".join(f"{n}. The price is {n * 4} dollars.\n" for n in range(1, 50)),
        "".join(f"Q{n}: What is {n} plus {n}?\nA{n}: It is {2 * n}.\n" for n in range(1, 24)),
        "".join(f"x_{{{n}}} = x_{{{n - 1}}} + d, " for n in range(1, 40)),
        "".join(f"    if s[{n}] == s[{n + 1}] and s[{n + 1}] == s[{n + 2}]:\n        k += 1\n" for n in range(25)),
        "".join(f"Day {n}: he buys {n} apples, so he has {n * (n + 1) // 2} apples.\n" for n in range(1, 40)),
        "".join(f"import module_{n}\n" for n in range(60)),
        "".join(f"Schritt {n}: Wir addieren {n} und {n + 1}.\n" for n in range(1, 30)),
        "".join(f"<option value='{n}'>Option {n}</option>\n" for n in range(1, 40)),
        _START + "".join(f"Let me try {n}: {n} * 17 = {17 * n}, not equal. " for n in range(1, 30)),
        "".join(f"var{n} = var{n - 1} + 1\n" for n in range(1, 60)),
        "".join(f"Шаг {n}: прибавим {n} к сумме.\n" for n in range(1, 30)),
        "".join(f"print('line {n}')\n" for n in range(80)),
        "".join(f"Year {1900 + n}: the town has {1000 + 37 * n:,} people.\n" for n in range(40)),
        "".join(f"case {n}: return '{n:b}'; " for n in range(50)),
        "".join(
            f"Problem {n}:\nTom has {n} pens, loses {n % 3}. How many?\nSolution:\n{n - n % 3}\n" for n in range(3, 25)
        ),
        "".join(f"단계 {n}: 사과의 수를 {n}만큼 더한다.\n" for n in range(1, 30)),
        _OTHER + "\n" + "".join(f"Line {n} of the bill shows {n}.{n % 100:02} dollars.\n" for n in range(1, 30)),
        "".join(f"a[{n}] = {n / 4}; " for n in range(90)),
        "".join(f"([{n}, {n + 1}], [{n + 2}, {n + 3}]) -> merge; " for n in range(30)),
        "".join(f"Test case {n}: input {n}, output {n * n}, passed.\n" for n in range(1, 40)),
    ]
}
MIDDLE: Groups = {
    "loop, then other text": [
        "We need the sum. " * 20 + _OTHER,
        _START + "He goes to the shop. " * 14 + _OTHER,
        _OTHER + " " + "Then we add them up. " * 16 + _OTHER,
        "I will count again. " * 40 + _OTHER + " " + _START,
        "然后我们再加一次。" * 24 + "所以农场一共收了四十个鸡蛋，卖给三家商店，剩下的留给孩子们明天早上吃。",
        "    value = value + 1  # add one\n" * 12
        + "    if value > limit:\n        raise ValueError(limit)\n    return",
        "Carry the one over. " * 12 + _START + _OTHER,
        "The dog barks at night. " * 18 + "Nobody knows why, since the yard is empty and the gate was shut at six.",
        _START + "So we have seven pens left. " * 30 + _OTHER * 2,
        "Снова сложим все числа. " * 15 + "Потом мельник считает мешки, платит возчикам и закрывает ворота на ночь.",
    ]
}
NEAR: Groups = {
    "near repetition": [
        _mixed(("the", "of", "a", "in"), 400),
        _mixed(("so", "and", "then", "it", "is"), 320),
        _mixed(("He buys apples.", "He sells pears.", "She eats plums."), 70),
        _mixed(("return x", "return y", "x = y", "y = x"), 120, "\n"),
        _mixed(("Tom has 3 apples and", "Tom has 4 apples and", "Tom has 5 pears and"), 50),
        _mixed(("一个", "两个", "三个"), 200, ""),
        _mixed(("I see.", "I know.", "Well."), 120),
        _mixed(("yes", "no"), 300),
        _mixed(("We add the two numbers to get the sum.", "We add the two sums to get the number."), 30),
        _mixed(("1", "0"), 400, ", "),
    ]
}

_SENTENCES = {
    "latin": "apple result function therefore price number answer because small table",
    "cyrillic": "который ответ было число потому город время жизнь очень дело",
    "hebrew": "תשובה מספר ילד בית דרך שנה עולם יום",
    "arabic": "جواب رقم بيت طريق عالم يوم كتاب شمس",
    "han": "答案 数字 因为 结果 我们 城市 时间",
    "thai": "คำตอบ ตัวเลข บ้าน เวลา เมือง",
    "hindi": "उत्तर संख्या घर समय नगर जीवन",
    "georgian": "პასუხი რიცხვი სახლი დრო ქალაქი",
}
_WORDS = {script: words.split() for script, words in _SENTENCES.items()}


def _salad(scripts: str, n: int, between: str = " ") -> str:
    return between.join(_RANDOM.choice(_WORDS[_RANDOM.choice(scripts.split())]) for _ in range(n))


def _signs(low: int, high: int, n: int) -> str:
    return "".join(chr(_RANDOM.randrange(low, high)) for _ in range(n))


SCRIPTS: Groups = {
    "salad of scripts": [
        _salad("latin cyrillic hebrew", 60),
        _salad("latin cyrillic han", 50),
        _salad("latin han arabic", 80),
        _salad("latin cyrillic hebrew arabic han thai hindi georgian", 120),
        _salad("cyrillic thai hindi", 60),
        _salad("latin arabic thai", 40),
        _salad("latin cyrillic hebrew", 40, ""),
        _salad("han cyrillic arabic latin", 60, ""),
        _OTHER + " " + _salad("latin cyrillic hebrew arabic han thai", 40),
        _START + _OTHER + " " + _salad("latin cyrillic georgian", 50),
        _salad("latin hebrew hindi", 150),
        _salad("latin cyrillic han thai", 30) + ". " + _salad("latin cyrillic arabic", 30),
        _signs(0x0100, 0x1200, 200),
        _signs(0x0400, 0x0E80, 150),
        _mixed("aбвгdeאבגfгlжש", 200, ""),
        _salad("latin cyrillic hebrew arabic", 20) + "\n" + _salad("latin cyrillic hebrew arabic", 20),
    ]
}
STRANGE: Groups = {
    "broken characters": [
        "The answer is \ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd",
        "ab\ufffdcd\ufffdef\ufffdgh\ufffdij\ufffdkl\ufffdmn\ufffd",
        "So she has \ud83d\ud83d\ud83d\ud83d\ud83d apples left",
        _mixed("abcdefgh\ufffd\ufffd", 120, ""),
        "\x01\x02\x03\x04 the answer \x05\x06\x07\x0e\x0f is",
        "\x00" * 80,
        _signs(0xE000, 0xF800, 60),
        _START + _signs(0xE000, 0xF8FF, 20),
        _signs(0x80, 0x9F, 40) + " so it is",
        "Total\ufffd: \ufffd1\ufffd8\ufffd d\ufffdoll\ufffdars",
        _signs(0xD800, 0xDFFF, 30),
        _signs(0x1B, 0x20, 60) + " the end",
        "".join(f"\ufffd{c}" for c in "the sum of all prices"),
        _signs(0x40000, 0x60000, 40),
        _OTHER + "\ufffd" * 40,
    ]
}


_ENDINGS = "ing tion der er pre qu ost ix ab str ult em oph ure zz ank vel unn ot ish cr pa lo ve ne"
_PIECES = _ENDINGS.split()
_MANY = (
    _OTHER + " " + " ".join(_WORDS["latin"]) + " ladder violet quietly seven onto forms lamp unless green ran"
).split()
ONE_SCRIPT: Groups = {  # no detector claims to see these
    "salad in one script": [
        *(_mixed("abcdefghijklmnopqrstuvwxyz    ", n, "") for n in (150, 300, 600, 1200)),
        *(_mixed(_PIECES, n, "") for n in (60, 120, 240)),
        *(_mixed(_PIECES, n) for n in (60, 120, 240)),
        *(_mixed(_MANY, n) for n in (40, 80, 160, 320)),
        *(_mixed("!@#$%^&*()_+-=[]{};:,.<>/?|~", n, "") for n in (100, 200, 400)),
        *(_mixed(_WORDS["cyrillic"], n) for n in (40, 90)),
        _mixed("0123456789", 300, ""),
        "".join(_mixed("abcXYZ019", 7, "") + _mixed(";:-_", 1) for _ in range(40)),
    ]
}
