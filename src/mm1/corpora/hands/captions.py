"""True captions of a scene, in varied forms."""

from __future__ import annotations

from mm1.corpora.hands.english import listed
from mm1.corpora.hands.scene import Scene


def captions(scene: Scene) -> list[str]:
    """Return all captions of a scene; each is true, the first is the plainest."""
    phrases = [group.phrase for group in scene.groups]
    first = phrases[0]
    if scene.card is not None:
        word, is_first = scene.card.word, scene.card_first
        return [
            f"{first} {'below' if is_first else 'above'} a card that says {word}",
            f"a card that says {word} {'above' if is_first else 'below'} {first}",
            f"{first} and the word {word}",
        ]
    if scene.layout == "alone":
        return [first, f"a picture of {first}", f"this is {first}", f"there is {first}", f"{first} alone"]
    if scene.layout == "group":
        return [first, f"a picture of {first}", f"there are {first}", f"{first} together", f"we see {first}"]
    if scene.layout in ("left-right", "top-bottom"):
        return _of_two(phrases[0], phrases[1], beside=scene.layout == "left-right")
    if scene.layout == "quarters":
        placed = [f"{phrase} at the {place}" for phrase, place in zip(phrases, scene.places, strict=True)]
        return [listed(placed), listed(phrases), f"there is {listed(placed)}"]
    return [listed(phrases), f"a picture of {listed(phrases)}", f"we see {listed(phrases)}"]


def _of_two(first: str, second: str, beside: bool) -> list[str]:
    if beside:
        return [
            f"{first} on the left and {second} on the right",
            f"{first} to the left of {second}",
            f"{second} to the right of {first}",
            f"{first} beside {second}",
        ]
    return [
        f"{first} above {second}",
        f"{second} below {first}",
        f"{first} at the top and {second} at the bottom",
    ]
