"""Short plain texts, generated: general language for training, for distractors and for nothing else.

One raw example:

    On a cold morning Mia walked to the harbour. She saw an old boat and sat down beside it. In the evening it began ...
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tasks.splits import Split, split_of

_WHEN = (
    "On a cold morning",
    "One summer day",
    "Late at night",
    "After lunch",
    "Last Sunday",
    "Before sunrise",
    "In the autumn",
)
_WHO = (
    "Mia",
    "Tom",
    "Ana",
    "Ben",
    "the old man",
    "the teacher",
    "a young girl",
    "the baker",
    "my brother",
    "the doctor",
)
_WENT = ("walked to", "rode to", "looked at", "came back from", "dreamed of", "ran towards", "waited near", "painted")
_PLACE = (
    "the harbour",
    "the market",
    "the quiet forest",
    "the river",
    "a small village",
    "the station",
    "the garden",
    "the hill",
)
_SAW = ("saw", "found", "heard", "met", "remembered", "looked for", "sang about", "wrote about")
_THING = (
    "an old boat",
    "a red kite",
    "a grey cat",
    "two birds",
    "a broken clock",
    "a wooden door",
    "a bright lamp",
    "a long letter",
)
_AND = (
    "sat down beside it",
    "smiled",
    "took it home",
    "told nobody",
    "stayed for an hour",
    "went on slowly",
    "laughed",
    "fell asleep",
)
_END = (
    "In the evening it began to rain.",
    "The sky was clear and blue.",
    "Nobody knew why.",
    "It was a good day.",
    "The wind came from the sea.",
    "Everything was quiet again.",
    "The road home was long.",
    "Then the bells began to ring.",
)


def texts(split: Split, seed: int = 0) -> Iterator[str]:
    """An endless stream of texts whose wording belongs to `split`."""
    rng = random.Random(f"mini_texts {split} {seed}")
    while True:
        parts = [rng.choice(options) for options in (_WHEN, _WHO, _WENT, _PLACE, _SAW, _THING, _AND, _END)]
        when, who, went, place, saw, thing, then, end = parts
        text = f"{when} {who} {went} {place}. There somebody {saw} {thing} and {then}. {end}"
        if split_of(text) == split:
            yield text
