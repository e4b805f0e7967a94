"""Normal answers that the token limit cut, and such of an unknown ending."""

from __future__ import annotations

from scripts.failure_kinds.labelled import Groups

_LADDER = (
    "To climb the ladder the painter needs two hands, so the bucket stays below. His sister ties a rope to it and "
    "waits until he has reached the fourth step. Then she counts to three and he pulls. On the first try half of the "
    "paint is lost, on the second a third, and only on the third does the bucket arrive full."
)
_SHOP = (
    "A shop sells 14 lamps on Monday and twice as many on Tuesday, which makes 28. On Wednesday it sells 5 fewer than "
    "on Monday, that is 14 - 5 = 9. In all it sells 14 + 28 + 9 = 51 lamps. Each costs 12 dollars, so it takes in "
    "51 * 12 = 612 dollars. The rent is 200 dollars, so 612 - 200 = "
)
_CODE = (
    "def merge(left, right):\n    result = []\n    i = j = 0\n    while i < len(left) and j < len(right):\n"
    "        if left[i] <= right[j]:\n            result.append(left[i])\n            i += 1\n        else:\n"
    "            result.append(right[j])\n            j += 1\n    result.extend(left[i:])\n    result.extend(right"
)
_CASES = ("Let a = 1. Then b = 5, so a + b = 6.", "Let a = 2. Now b must be 4, which is even.", "With a = 3, b = 3.")
_PEOPLE = ("Ann", "Bob", "Cid", "Dora", "Eve", "Finn", "Gus", "Hana")
_PLANETS = ("Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune")

CUT: Groups = {
    "cut": [
        _LADDER,
        _SHOP,
        _CODE,
        _LADDER + " " + _SHOP + _LADDER[:100],
        " ".join(_CASES) + " If a = 4, then b = 2 and the product is",
        "| person | age |\n|---|---|\n" + "".join(f"| {p} | {20 + len(p)} |\n" for p in _PEOPLE),
        "| A | B | C |\n|---|---|---|\n| 1 | 2 | 3 |\n| 4 | 5 | 6 |\n| 7 | 8 | 9 |\n| 10 | 1",
        "".join(f"{i}. {p} is planet number {i}.\n" for i, p in enumerate(_PLANETS[:6], 1)),
        "The result:\n" + "-" * 64,
        "# Report\n\n" + "=" * 80 + "\nTotal",
        "The primes below 200 are " + ", ".join(str(n) for n in range(2, 200) if all(n % d for d in range(2, n))),
        "pi = 3.14159265358979323846264338327950288419716939937510582097494459230781640628620899",
        "Step 1: add 3 and 4 to get 7.\nStep 2: multiply by 6 to get 42.\nStep 3: take 2 away.\nStep 4: halve",
        "{\n" + "".join(f'  "{p.lower()}": {{"seat": {i}, "paid": true}},\n' for i, p in enumerate(_PEOPLE[:5])),
        "```\n" + "".join(f"{p:10}{len(p):>4} letters\n" for p in _PLANETS),
        "x^2 - 5x + 6 = 0\n(x - 2)(x - 3) = 0\nx = 2 or x = 3\nCheck: 4 - 10 + 6 = 0 and 9 - 15 + 6 =",
        "Name: " + "_" * 60 + "\nStreet: " + "_" * 60,
        "Dear Sir or Madam,\n\n" + _LADDER[:200] + "\n\n\n\n\n\n\n\n",
        "1 + 2 = 3, 3 + 3 = 6, 6 + 4 = 10, 10 + 5 = 15, 15 + 6 = 21, 21 + 7 = 28, 28 + 8 = 36, 36 + 9 =",
        "import os\nimport re\nimport sys\nimport json\nimport math\nimport random\nimport string\nimport itertools\n",
        "for i in range(10):\n    for j in range(10):\n        for k in range(10):\n            for m in range(10):\n",
        "농장에서는 매일 달걀 열여섯 개를 거둔다. 아침에 세 개를 먹고 네 개로 빵을 굽는다. 나머지를 시장에서",
        "小明有五个苹果，妈妈又给了他七个。他把其中四个送给妹妹，自己吃了两个，剩下的放在篮子里。现在篮子里有",
        "He said no. She said no. They said no. Then the youngest came in and said yes, and everybody laughed at",
        "SELECT name, sum(price) FROM sales JOIN shops ON shops.id = sales.shop WHERE day > '2024-01-01' GROUP BY",
        "(((a + b) * c - d) / e + ((f - g) * (h + i))) ** 2 - (((j * k) + l) / ((m - n) * o)) + (p - (q * (r +",
        "A-B-C-D-E-F-G-H-I-J-K-L-M-N-O-P-Q-R-S-T-U-V-W-X-Y-Z and a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p-q-r-s-t-u-v-w",
        "I will try 1: too small. I will try 2: too small. I will try 3: still too small. What about 12? Too large.",
    ],
}
LISTS: Groups = {  # what was asked for is a list; the rule for counters cannot know that
    "cut list": [
        "The table of seven:\n" + "".join(f"{n} times 7 is {7 * n}\n" for n in range(1, 22)),
        "".join(f"- [ ] Week {n}\n" for n in range(1, 12)),
        "".join(f"2024-03-{d:02} 09:30:00 INFO backup done\n" for d in range(1, 20)),
        "".join(f"In {1950 + 5 * n} the town had {3100 + 217 * n} people.\n" for n in range(12)),
        "[" + "".join(f'{{"seat": {n}, "free": true}}, ' for n in range(1, 18)),
        "grid = [\n" + "    [0, 0, 0],\n" * 2 + "    [0, 1, 0],\n" + "    [1, 0, 0],\n",
        "".join(f"- {p} orbits the sun\n" for p in _PLANETS),
        "<table>\n" + "".join(f"<tr><td>{p}</td><td>{len(p)}</td></tr>\n" for p in _PEOPLE),
        "| n | n^2 | n^3 |\n|---|---|---|\n" + "".join(f"| {n} | {n * n} | {n**3} |\n" for n in range(1, 30)),
        "".join(f"{n}! = {n} x {n - 1}!\n" for n in range(2, 16)),
        "".join(f"Round {n}: {_PEOPLE[n % 8]} against {_PEOPLE[(n + 3) % 8]}\n" for n in range(1, 12)),
        "def test_cube():\n" + "".join(f"    assert cube({n}) == {n**3}\n" for n in range(6)),
    ],
}
UNKNOWN: Groups = {
    "unknown ending": [
        _LADDER,
        _SHOP + "412.",
        _CODE + "[j:])\n    return result\n",
        "The answer is 18.\n" + "-" * 70,
        "The answer is 18." + "\n" * 70,
        "Your name: " + "_" * 80,
        "| n | n^2 |\n|---|---|\n" + "".join(f"| {n} | {n * n} |\n" for n in range(1, 20)),
        "print('a')\nprint('a')\nprint('a')\n",
        "def f(n):\n    if n < 2:\n        return n\n    return f(n - 1) + f(n - 2)\n",
        "'''" + "\n".join(f">>> cube({n})\n{n**3}" for n in range(9)) + "\n'''",
        "Round and round. Round and round. And then it stops.",
        "grid = [\n" + "    [0, 0, 0],\n" * 3 + "]\n",
        "A, A, B, A, C, A, B, D: the letters come in no order at all, and A comes four times.",
        "He waited. He waited for the train, for the rain, for a word. He waited, and nobody came.",
    ],
}
