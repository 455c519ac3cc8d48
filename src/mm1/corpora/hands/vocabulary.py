"""Which things the world has: everyday ones that five icon sets draw, by the subgroups of Unicode's emoji.

Left out are faces, people, hands, symbols, arrows, clocks, flags, and things that look like another (`dog face` beside
`dog`), have no singular (`jeans`), or have a name in German, Spanish or French that means something else.
"""

from __future__ import annotations

from dataclasses import dataclass

_ANIMAL, _ARTEFACT, _FOOD, _PLANT = ("05",), ("06",), ("13",), ("20",)


@dataclass(frozen=True, slots=True)
class KindOfThing:
    """A kind of things.

    Attributes:
        name: In plain words.
        files: Numbers of WordNet's files that have its nouns (lexnames(5WN)), the fittest first: a mouse is an animal.
        labels: The English names of emojibase, the most everyday first.
    """

    name: str
    files: tuple[str, ...]
    labels: tuple[str, ...]


def _kind(name: str, files: tuple[str, ...], labels: str) -> KindOfThing:
    return KindOfThing(name, files, tuple(labels.split(", ")))


KINDS = (
    _kind(
        "mammal",
        _ANIMAL,
        "dog, cat, horse, cow, pig, rabbit, mouse, elephant, tiger, monkey, fox, wolf, goat, bear, camel, panda, "
        "koala, gorilla, leopard, hamster, rhinoceros, bat",
    ),
    _kind("bird", _ANIMAL, "duck, owl, penguin, eagle, rooster, turkey, dove"),
    _kind("sea animal", _ANIMAL, "whale, dolphin, shark, octopus, crab, squid, blowfish"),
    _kind("insect", _ANIMAL, "butterfly, honeybee, ant, lady beetle, cricket"),
    _kind("reptile", _ANIMAL, "snake, turtle, crocodile, lizard"),
    _kind("plant", _PLANT, "rose, cactus, sunflower, tulip, hibiscus, shamrock"),
    _kind(
        "fruit",
        _FOOD + _PLANT,
        "banana, lemon, strawberry, pear, pineapple, peach, watermelon, tangerine, melon, tomato",
    ),
    _kind("vegetable", _FOOD + _PLANT, "carrot, potato, cucumber, eggplant, avocado"),
    _kind("food", _FOOD, "pizza, hamburger, egg, cookie, doughnut, hot dog, croissant, lollipop, taco, burrito"),
    _kind(
        "vehicle",
        _ARTEFACT,
        "bus, automobile, bicycle, tractor, ambulance, helicopter, rocket, taxi, motorcycle, fire engine, airplane, "
        "locomotive, racing car, police car, tram",
    ),
    _kind("boat", _ARTEFACT, "sailboat, canoe, ferry, ship, speedboat"),
    _kind(
        "tool", _ARTEFACT, "hammer, wrench, pencil, spoon, paintbrush, key, microscope, telescope, clamp, pick, crayon"
    ),
    _kind("instrument", _ARTEFACT, "guitar, violin, trumpet, drum, saxophone"),
    _kind("garment", _ARTEFACT, "dress, crown, top hat, kimono, t-shirt, bikini, running shoe"),
    _kind("bag", _ARTEFACT, "backpack, handbag, briefcase, purse"),
    _kind("furnishing", _ARTEFACT, "bed, door, bathtub, toilet, candle"),
    _kind(
        "device", _ARTEFACT, "camera, television, telephone, radio, printer, laptop, flashlight, microphone, battery"
    ),
    _kind("building", _ARTEFACT, "house, church, factory, school, mosque, hospital"),
    _kind("ball", _ARTEFACT, "soccer ball, basketball, baseball, volleyball"),
)
"""The kinds, in the order of Unicode's subgroups that they come from."""

MEANT = {
    "crown": "headdress",
    "dolphin": "whales",
    "hammer": "hand tool",
    "pick": "iron tool",
    "television": "electronic device",
    "toilet": "fixture",
    "tram": "rails",
}
"""Words of the gloss that is meant, where the first one of the fittest file is another."""


def in_turn() -> list[tuple[str, KindOfThing]]:
    """Return all labels with their kinds: the first of every kind, then the second, so that any number is varied."""
    longest = max(len(kind.labels) for kind in KINDS)
    return [(kind.labels[rank], kind) for rank in range(longest) for kind in KINDS if rank < len(kind.labels)]
