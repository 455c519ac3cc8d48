"""The conventions of pages: ways to describe a coloured shape.

A picture alone doesn't show its page's convention; the lines before it do. No two conventions agree on more than one
colour in eight (French and Spanish share `gris`), so two to four lines distinguish them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mm1.corpora.easy_vqa import COLORS, SHAPES

_COLORS = {
    "de": ("schwarz", "grau", "rot", "grün", "blau", "gelb", "türkis", "braun"),
    "fr": ("noir", "gris", "rouge", "vert", "bleu", "jaune", "turquoise", "marron"),
    "es": ("negro", "gris", "rojo", "verde", "azul", "amarillo", "turquesa", "marrón"),
}
# There is no French convention that names only the shape, since two of its three words are the English ones.
_SHAPES = {
    "de": ("Kreis", "Rechteck", "Dreieck"),
    "fr": ("cercle", "rectangle", "triangle"),
    "es": ("círculo", "rectángulo", "triángulo"),
}


def _color(language: str, color: str) -> str:
    return _COLORS[language][COLORS.index(color)]


def _shape(language: str, shape: str) -> str:
    return _SHAPES[language][SHAPES.index(shape)]


def _german(color: str, shape: str) -> str:
    adjective = "türkisfarben" if color == "teal" else _color("de", color)
    return f"{adjective}{'er' if shape == 'circle' else 'es'} {_shape('de', shape)}"


@dataclass(frozen=True, slots=True)
class Convention:
    """A way to describe a coloured shape.

    Attributes:
        name: The convention's name.
        phrase: Maps a colour (one of `easy_vqa.COLORS`) and a shape (one of `easy_vqa.SHAPES`) to the description.
    """

    name: str
    phrase: Callable[[str, str], str]


CONVENTIONS = (
    Convention("color", lambda color, shape: color),
    Convention("COLOR", lambda color, shape: color.upper()),
    Convention("Color", lambda color, shape: color.title()),
    Convention("shape", lambda color, shape: shape),
    Convention("SHAPE", lambda color, shape: shape.upper()),
    Convention("Shape", lambda color, shape: shape.title()),
    Convention("color shape", lambda color, shape: f"{color} {shape}"),
    Convention("COLOR SHAPE", lambda color, shape: f"{color} {shape}".upper()),
    Convention("shape, color", lambda color, shape: f"{shape}, {color}"),
    Convention("a picture of ...", lambda color, shape: f"a picture of a {color} {shape}"),
    Convention("it is color.", lambda color, shape: f"it is {color}."),
    Convention("German color", lambda color, shape: _color("de", color)),
    Convention("German shape", lambda color, shape: _shape("de", shape)),
    Convention("German color shape", _german),
    Convention("French color", lambda color, shape: _color("fr", color)),
    Convention("French shape color", lambda color, shape: f"{_shape('fr', shape)} {_color('fr', color)}"),
    Convention("Spanish color", lambda color, shape: _color("es", color)),
    Convention("Spanish shape", lambda color, shape: _shape("es", shape)),
)
