"""hands: the same everyday things drawn by five hands, in captions, pages, texts and items.

    [picture] two foxes to the left of a small bus
    [picture] this is a dax [picture] this is a wug [picture by another hand] this is a dax
    A fox is an alert carnivorous mammal with pointed muzzle and ears and a bushy tail. [picture] Here are three foxes.

Five icon sets draw the same names, so that a name is more than one drawing. One hand, a tenth of the names, a third of
the conventions, a quarter of the invented words and one format of questions never occur in training.

Drawings: icon sets of Iconify on npm, each under its licence. Names: emojibase, MIT. Glosses: WordNet.
"""

from __future__ import annotations

from mm1.corpora.hands import sources
from mm1.corpora.hands.conventions import NEW, TRAINED
from mm1.corpora.hands.conversations import Conversations
from mm1.corpora.hands.drawings import Drawings
from mm1.corpora.hands.invented import invented_words
from mm1.corpora.hands.items import QUERIES_PER_PAGE, Items
from mm1.corpora.hands.pages import Pages
from mm1.corpora.hands.picture import Painter
from mm1.corpora.hands.questions import FORMATS, NEW_FORMAT
from mm1.corpora.hands.recall import recall
from mm1.corpora.hands.tales import spoken
from mm1.corpora.hands.texts import texts as make_texts
from mm1.corpora.hands.things import hold_out, read_things, words
from mm1.corpora.hands.vocabulary import in_turn
from mm1.corpora.hands.world import CARD_WORDS, HANDS, NEW_HAND, World
from mm1.corpora.material import Material
from mm1.corpora.pages import OPENINGS
from mm1.corpora.wordnet import noun_senses
from mm1.data.skips import Skips
from mm1.errors import UserError

# So many that a word occurs about once in training: a model can't learn them, only copy them from the lines before.
_INVENTED, _NEW_INVENTED_SHARE = 4000, 0.25
_QUESTIONS_SHARE = 0.2  # of the captions' documents
_FEWEST_SHOTS = 9  # of a convention, so that a query has eight with other pictures


def build(
    *,
    things: int = 48,
    captions: int = 20000,
    pages: int = 6000,
    texts: int = 3000,
    conversations: int = 6000,
    items: int = 480,
    size: int = 128,
    seed: int = 0,
) -> Material:
    """Return the material of hands.

    Splits of training: `captions` and `captions-questions` (a fifth), `pages`, `text`; of fine-tuning: `conversations`
    and `rounds`. Items, each with shots in `NAME-shots`: `captions-heldout`, `names-heldout`, `lines`, `new-lines`,
    `small-lines`, `words`, `scenes-questions`, `find`, `read`, `new-format`. Items without pictures: `recall`, what the
    texts say.

    Args:
        things: Number of things, held-out ones included.
        captions: Number of documents of `captions` and `captions-questions`.
        pages: Number of documents of `pages`.
        texts: Number of documents of `text`.
        conversations: Number of documents of `conversations` and of `rounds` together, half of them each.
        items: Number of items of each split, rounded down to equally many for every convention and page.
        size: Side of the pictures in pixels.
        seed: The seed of all choices, including what is held out.
    """
    if things < 20 or min(captions, pages, texts, conversations) < 10 or items < len(TRAINED) or not 64 <= size <= 1024:
        raise UserError(
            "options of corpus hands: set things to at least 20, captions, pages, texts and conversations to at least "
            f"10, items to at least {len(TRAINED)} and size from 64 to 1024 (given: things={things}, "
            f"captions={captions}, pages={pages}, texts={texts}, conversations={conversations}, items={items}, "
            f"size={size})"
        )
    skips = Skips()
    names = {sources.icon_name(label) for label, _ in in_turn()}
    icons = {icon_set.hand: sources.read_icons(icon_set, names) for icon_set in sources.ICON_SETS}
    known = read_things(things, set.intersection(*(set(drawn) for drawn in icons.values())), skips)
    said = (*spoken(), *OPENINGS, *CARD_WORDS, *FORMATS)
    old, new = hold_out(known, said, seed)
    world = World(old, new, size, seed)
    trained_words, new_words = _invented(world, seed)
    drawn = {(hand, thing.icon): svgs[thing.icon] for hand, svgs in icons.items() for thing in known}
    painter = Painter(Drawings(drawn, size))
    asked = round(_QUESTIONS_SHARE * captions)
    make, talk, shots = Items(world, painter), Conversations(world, painter), items // 2
    per_trained, per_new = items // len(TRAINED), items // len(NEW)
    line_shots = max(_FEWEST_SHOTS, items // 20)
    word_pages = items // QUERIES_PER_PAGE
    return Material(
        splits={
            "captions": make.captions("captions", captions - asked),
            "captions-questions": make.questions("captions-questions", asked),
            "pages": Pages(world, painter, trained_words)(pages, "pages"),
            "text": make_texts(world, texts, "text"),
            "conversations": talk.on_questions(conversations // 2, "conversations"),
            "rounds": talk.in_rounds(conversations // 2, "rounds"),
            "recall": recall(world, items, "recall"),
            "captions-heldout": make.captions("captions-heldout", items),
            "captions-heldout-shots": make.captions("captions-heldout-shots", shots),
            "names-heldout": make.names("names-heldout", items),
            "names-heldout-shots": make.names("names-heldout-shots", shots),
            "lines": make.lines("lines", TRAINED, per_trained),
            "lines-shots": make.lines("lines-shots", TRAINED, line_shots),
            "new-lines": make.lines("new-lines", NEW, per_new),
            "new-lines-shots": make.lines("new-lines-shots", NEW, line_shots),
            "small-lines": make.lines("small-lines", TRAINED, per_trained, small=True),
            "small-lines-shots": make.lines("small-lines-shots", TRAINED, line_shots, small=True),
            "words": make.words("words", new_words, word_pages, shots=False),
            "words-shots": make.words("words-shots", new_words, word_pages, shots=True),
            "scenes-questions": make.scenes("scenes-questions", items),
            "scenes-questions-shots": make.scenes("scenes-questions-shots", shots),
            "find": make.find("find", items),
            "find-shots": make.find("find-shots", shots),
            "read": make.read("read", items),
            "read-shots": make.read("read-shots", shots),
            "new-format": make.new_format("new-format", items),
            "new-format-shots": make.new_format("new-format-shots", shots),
        },
        licence=sources.licence(),
        sources=sources.sources(),
        derived=f"Pictures are made up: drawings of {len(known)} things on a background of {size} pixels; captions, "
        "questions, answers and prose follow from what was drawn, names and glosses from the sources. Training has the "
        f"hands {', '.join(HANDS)}; items show {NEW_HAND} where they ask for names. Held-out things: "
        f"{', '.join(thing.name for thing in new)}. Conventions of training, by the example of {old[0].name}: "
        f"{' | '.join(convention.answer(old[0]) for convention in TRAINED)}. Held-out ones: "
        f"{' | '.join(convention.answer(old[0]) for convention in NEW)}. Held-out format: {NEW_FORMAT}",
        skips=skips,
    )


def _invented(world: World, seed: int) -> tuple[list[str], list[str]]:
    """Return the invented words of training and those that are held out; none is a word of any text."""
    made = invented_words(_INVENTED, seed)
    texts_of = [text for thing in (*world.things, *world.new_things) for text in (*thing.names, thing.gloss)]
    real = words([*texts_of, *spoken(), *OPENINGS, *CARD_WORDS]) | set(noun_senses(made))
    free = [word for word in made if word not in real]
    border = round((1 - _NEW_INVENTED_SHARE) * len(free))
    return free[:border], free[border:]
