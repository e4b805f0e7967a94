"""Closed-book questions with one short answer: the off-target control of the embedded model.

One raw example (prompt, answer):

    What is the capital of Norway?
    Oslo

Each fact is asked in several wordings. Two of them, chosen by the fact's hash, are kept for validation and test, so a
test question is a wording of a known fact that was never seen, and no normalised text stands in two splits.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.splits import Split, content_hash

# relation -> (wordings, "key=value" pairs)
RELATIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "capital": (
        (
            "What is the capital of {}?",
            "Name the capital of {}.",
            "Which city is the capital of {}?",
            "Tell me the capital city of {}.",
            "The capital of {} is which city?",
            "What is the name of the capital of {}?",
            "Say the capital of {}.",
            "Do you know the capital of {}?",
        ),
        "Norway=Oslo Sweden=Stockholm Finland=Helsinki Denmark=Copenhagen Iceland=Reykjavik Ireland=Dublin "
        "France=Paris Spain=Madrid Portugal=Lisbon Italy=Rome Greece=Athens Austria=Vienna Germany=Berlin "
        "Poland=Warsaw Hungary=Budapest Romania=Bucharest Bulgaria=Sofia Serbia=Belgrade Croatia=Zagreb Latvia=Riga "
        "Estonia=Tallinn Lithuania=Vilnius Ukraine=Kyiv Belgium=Brussels Egypt=Cairo Kenya=Nairobi Ghana=Accra "
        "Senegal=Dakar Morocco=Rabat Tunisia=Tunis Angola=Luanda Uganda=Kampala Zambia=Lusaka Japan=Tokyo "
        "China=Beijing India=Delhi Nepal=Kathmandu Thailand=Bangkok Vietnam=Hanoi Mongolia=Ulaanbaatar Iran=Tehran "
        "Iraq=Baghdad Turkey=Ankara Lebanon=Beirut Jordan=Amman Qatar=Doha Cuba=Havana Peru=Lima Chile=Santiago "
        "Canada=Ottawa Ecuador=Quito Colombia=Bogota Uruguay=Montevideo Jamaica=Kingston Australia=Canberra "
        "Samoa=Apia Fiji=Suva",
    ),
    "opposite": (
        (
            "What is the opposite of {}?",
            "Name the opposite of {}.",
            "Which word is the opposite of {}?",
            "Tell me the opposite of the word {}.",
            "The opposite of {} is which word?",
            "Give a word that means the opposite of {}.",
            "Say the opposite of {}.",
            "Do you know the opposite of {}?",
        ),
        "hot=cold big=small tall=short fast=slow high=low light=dark old=young hard=soft wet=dry rich=poor full=empty "
        "near=far open=closed loud=quiet early=late happy=sad sweet=sour strong=weak thick=thin wide=narrow "
        "clean=dirty deep=shallow sharp=blunt heavy=light push=pull buy=sell win=lose start=stop day=night "
        "summer=winter north=south east=west left=right up=down yes=no first=last true=false love=hate give=receive "
        "arrive=leave remember=forget",
    ),
    "young": (
        (
            "What is a young {} called?",
            "Name the young of a {}.",
            "Which word means a young {}?",
            "Tell me what the young of a {} is called.",
            "A young {} is called what?",
            "What do you call a baby {}?",
            "Say the word for a young {}.",
            "Do you know the name of a young {}?",
        ),
        "dog=puppy cat=kitten cow=calf horse=foal sheep=lamb goat=kid pig=piglet hen=chick duck=duckling "
        "goose=gosling swan=cygnet deer=fawn bear=cub kangaroo=joey frog=tadpole eel=elver owl=owlet hare=leveret "
        "fly=maggot butterfly=caterpillar spider=spiderling fish=fry seal=pup eagle=eaglet",
    ),
    "colour": (
        (
            "What colour is {}?",
            "Name the colour of {}.",
            "Which colour does {} have?",
            "Tell me the colour of {}.",
            "The colour of {} is what?",
            "What is the usual colour of {}?",
            "Say the colour of {}.",
            "Do you know the colour of {}?",
        ),
        "snow=white coal=black grass=green blood=red chocolate=brown milk=white gold=yellow silver=grey honey=amber "
        "ruby=red emerald=green lavender=purple flamingo=pink carrot=orange sapphire=blue wine=maroon salmon=coral "
        "turquoise=teal ink=indigo sand=beige",
    ),
    "home": (
        (
            "Where does a {} live?",
            "Name the home of a {}.",
            "What is the home of a {} called?",
            "Tell me where a {} lives.",
            "The home of a {} is called what?",
            "In what kind of home does a {} live?",
            "Say the name of the home of a {}.",
            "Do you know where a {} lives?",
        ),
        "bee=hive bird=nest rabbit=burrow lion=den beaver=lodge badger=sett squirrel=drey ant=hill wasp=vespiary "
        "fox=earth monk=monastery king=palace soldier=barracks nun=convent sailor=ship farmer=farmhouse camper=tent "
        "knight=castle snail=shell otter=holt",
    ),
    "tool": (
        (
            "Who works with a {}?",
            "Name the person who works with a {}.",
            "Which worker uses a {}?",
            "Tell me who uses a {} at work.",
            "A {} is used by whom?",
            "What is a worker with a {} called?",
            "Say who works with a {}.",
            "Do you know who works with a {}?",
        ),
        "oven=baker anvil=smith needle=tailor plough=farmer scalpel=surgeon trowel=mason brush=painter "
        "chisel=sculptor telescope=astronomer baton=conductor stethoscope=doctor gavel=judge saw=carpenter "
        "camera=photographer razor=barber net=fisherman loom=weaver spade=gardener lens=optician drill=dentist",
    ),
    "group": (
        (
            "What is a group of {} called?",
            "Name a group of {}.",
            "Which word means a group of {}?",
            "Tell me the word for a group of {}.",
            "A group of {} is called what?",
            "What do you call many {} together?",
            "Say the word for a group of {}.",
            "Do you know the word for a group of {}?",
        ),
        "wolves=pack lions=pride cows=herd fishes=school bees=swarm crows=murder ants=colony ships=fleet "
        "singers=choir players=team stars=galaxy trees=forest islands=archipelago geese=gaggle owls=parliament "
        "actors=cast sailors=crew whales=pod flowers=bouquet grapes=bunch soldiers=army kittens=litter",
    ),
    "past": (
        (
            "What is the past tense of {}?",
            "Name the past tense of {}.",
            "Which word is the past tense of {}?",
            "Tell me the past tense of the verb {}.",
            "The past tense of {} is which word?",
            "How is the past tense of {} written?",
            "Say the past tense of {}.",
            "Do you know the past tense of {}?",
        ),
        "go=went see=saw eat=ate run=ran take=took make=made write=wrote sing=sang swim=swam drink=drank fly=flew "
        "know=knew think=thought bring=brought catch=caught teach=taught speak=spoke break=broke drive=drove "
        "fall=fell feel=felt find=found hold=held keep=kept sleep=slept stand=stood tell=told wear=wore",
    ),
}


@dataclass(frozen=True)
class Fact:
    """One pair of a relation: the subject that is asked about, and the word that answers."""

    relation: str
    subject: str
    answer: str

    def wordings(self, split: Split) -> tuple[str, ...]:
        """The questions for this fact in one split: one for test, one for validation, the others for training."""
        templates = RELATIONS[self.relation][0]
        start = content_hash(f"{self.relation} {self.subject}") % len(templates)
        turned = [t.format(self.subject) for t in templates[start:] + templates[:start]]
        return {"test": tuple(turned[:1]), "validation": tuple(turned[1:2]), "train": tuple(turned[2:])}[split]


def facts() -> tuple[Fact, ...]:
    """Every fact, in the order of the tables."""
    pairs = [(r, p.partition("=")) for r, (_, table) in RELATIONS.items() for p in table.split()]
    return tuple(Fact(relation, subject, answer) for relation, (subject, _, answer) in pairs)
