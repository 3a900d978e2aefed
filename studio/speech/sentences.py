"""Sentences to be spoken: made from this module's own words, rich in the sounds that move the lips.

Two vocabularies and two sets of templates share nothing, so that a model tested on the second never
saw its words or rhythms in training.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Split = Literal["train", "held_out"]


@dataclass(frozen=True, slots=True)
class Grammar:
    """Templates with ``{slot}`` holes and the words for each slot."""

    templates: tuple[str, ...]
    words: Mapping[str, Sequence[str]]

    def sentence(self, rng: random.Random) -> str:
        text = rng.choice(self.templates)
        while "{" in text:
            start, end = text.index("{"), text.index("}")
            text = text[:start] + rng.choice(self.words[text[start + 1 : end]]) + text[end + 1 :]
        return text[0].upper() + text[1:]


ENGLISH_TRAIN: Final = Grammar(
    templates=(
        "{name} {did} the {adj} {thing} {where}.",
        "my {adj} {thing} and your {adj} {thing} were {where}.",
        "why would {name} put {number} {thing}s {where}?",
        "please move the {thing}, {name}, before {time}.",
        "we {did} a {thing}; they {did} a {adj} {thing}.",
        "{number} {thing}s, {number} {thing}s, and one {adj} {thing}.",
        "oh, {name}! what a {adj} {thing} you have.",
        "{name} and {name} {did} the {thing} at {time}.",
        "the {thing} was {adj}, but the {thing} was {adj} too.",
        "if you see {name} {where}, say that the {thing} is {adj}.",
        "could both of us view the {adj} {thing} by {time}?",
        "no, no, the {thing} never {did} me.",
        "it was {time}, and nobody but {name} {did} the {thing}.",
        "her number is {number}, {number}, {digit}, {digit}, {digit}.",
        "you push, I pull, and {name} {did} it {where}.",
        "just think of the {adj} {thing} {where}.",
        "{adj}, {adj}, {adj}: so {name} {did} my {thing}.",
        "I love how the {adj} {thing} moves.",
        "well, this {thing} is far above the {adj} {thing}.",
        "give {name} the {thing} or show me {number} more.",
    ),
    words={
        "name": (
            "Bob", "Vivian", "Phoebe", "Walter", "Emma", "Peter", "Mabel", "Joe", "Fiona", "Hugo",
            "Ruth", "Sheila", "Oscar", "Beth", "Tom", "Pavel", "Wendy", "Amy", "Louis", "Steve",
            "Barbara", "Victor", "Naomi", "Theo", "June", "Charlie", "Yvonne", "Paul", "Mary",
        ),
        "did": (
            "bought", "opened", "watched", "moved", "saved", "followed", "dropped", "believed in",
            "pushed", "found", "covered", "threw", "washed", "fixed", "painted", "brought",
            "chose", "shared", "poured", "whipped", "gave up", "borrowed", "remembered", "chewed",
        ),
        "adj": (
            "blue", "heavy", "smooth", "beautiful", "wet", "five foot", "marvelous", "warm", "old",
            "vivid", "huge", "purple", "thin", "famous", "quiet", "sharp", "round", "foolish",
            "wooden", "cheap", "soft", "broken", "sweet", "bumpy", "yellow", "open", "lovely",
            "extra", "hidden", "useful", "hot", "bad", "flat", "calm",
        ),
        "thing": (
            "boat", "fox", "beehive", "umbrella", "violin", "waterfall", "moon", "pie", "shoe",
            "thumb", "village", "window", "computer", "lamp", "piano", "father", "wolf", "cup",
            "garden", "theater", "muffin", "voice", "puppy", "apple", "button", "map", "beaver",
            "farm", "cheese", "jewel", "balloon", "hammer", "river", "mouse", "song", "choir",
            "robot", "bicycle", "thought", "house", "bathtub", "cow", "oven", "bubble",
        ),
        "where": (
            "behind the barn", "above the roof", "in the room", "by the pool", "over the bridge",
            "under the maple tree", "on the beach", "for a few weeks", "in my office",
            "from the west", "with both hands", "in front of the movie house", "far away",
            "on top of the bus", "near the sea shore", "without a word", "in the snow",
        ),
        "time": (
            "noon", "half past five", "twelve o'clock", "Wednesday morning", "the first of May",
            "eleven thirty", "two or three", "February", "supper", "four in the afternoon",
        ),
        "number": (
            "two", "five", "seven", "eleven", "forty four", "twenty one", "nine", "fifty five",
            "a hundred and three", "twelve", "sixty", "a thousand", "thirty three",
        ),
        "digit": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    },
)  # fmt: skip

ENGLISH_HELD_OUT: Final = Grammar(
    templates=(
        "every {adj} {thing} belongs to {name} these days.",
        "have they ever heard of a {adj} {thing} like {name}'s?",
        "when {name} came home, each {thing} had become {adj}.",
        "perhaps the {thing} that {verb} will be {adj} again.",
        "there are {number} {thing}s here, and most of them {verb}.",
        "whoever {verb} must also {verb} for {name}.",
        "after that, {name} showed us how {thing}s {verb}.",
        "I hope {name} and the {adj} {thing} can meet soon.",
    ),
    words={
        "name": ("Philip", "Margaret", "Abby", "Robin", "Sophie", "Matthew", "Olivia", "Webster"),
        "adj": (
            "proper", "brave", "fluffy", "muddy", "wonderful", "simple", "perfect", "bright",
            "shiny", "empty", "rough", "noble", "important", "grumpy", "violet", "wise",
        ),
        "thing": (
            "mailbox", "butterfly", "potato", "wheelbarrow", "pumpkin", "elephant", "teapot",
            "shop", "tomb", "leaf", "brother", "pillow", "zebra", "campfire", "bonfire", "view",
        ),
        "verb": (
            "jump", "whistle", "sleep", "improve", "laugh", "climb", "shop", "breathe", "weave",
            "bloom", "vote", "argue", "rub",
        ),
        "number": ("fourteen", "eighty six", "seventeen", "ninety", "fifteen", "sixteen"),
    },
)  # fmt: skip

GERMAN: Final = Grammar(
    templates=(
        "{name} {tat} {ding} {wo}.",
        "warum {tat} {name} {ding} und {ding}?",
        "heute {tat} ich {ding} {wo}, und {name} {tat} {ding}.",
        "bitte bring mir {ding}, {name}, wir warten {wo}.",
    ),
    words={
        "name": ("Peter", "Ulrike", "Bärbel", "Jürgen", "Sophie", "Moritz", "Vera", "Otto"),
        "tat": ("kaufte", "öffnete", "bemalte", "fand", "verlor", "wusch", "suchte", "mochte"),
        "ding": (
            "das blaue Boot", "einen Apfel", "die schöne Blume", "zwölf Bücher", "fünf Möwen",
            "meinen Pullover", "den Pfeffer", "eine Birne", "das Haus", "viele Vögel",
            "den Schuh", "die warme Suppe", "ein Puppenhaus", "die Wolke", "frische Milch",
        ),
        "wo": ("im Wald", "am Bahnhof", "über dem Fluss", "vor der Tür", "mit beiden Händen"),
    },
)  # fmt: skip

FRENCH: Final = Grammar(
    templates=(
        "{nom} {fait} {chose} {ou}.",
        "pourquoi {nom} {fait} {chose} et {chose}?",
        "ce matin, {nom} {fait} {chose}; {nom} {fait} {chose}.",
    ),
    words={
        "nom": ("Pauline", "Hugo", "Bruno", "Émilie", "Yves", "Véronique", "Juliette", "Simon"),
        "fait": ("achète", "ouvre", "trouve", "peint", "garde", "veut", "mange", "prépare"),
        "chose": (
            "une feuille bleue", "le bateau", "deux pommes", "un bon vin", "la lune", "huit œufs",
            "une chemise", "le beau bouquet", "un peu de beurre", "des fleurs", "ma valise",
        ),
        "ou": ("dans la rue", "sous le pont", "avec vous", "au bord de la mer", "chez moi"),
    },
)  # fmt: skip

SPANISH: Final = Grammar(
    templates=(
        "{nombre} {hizo} {cosa} {donde}.",
        "¿por qué {nombre} {hizo} {cosa} y {cosa}?",
        "hoy {nombre} {hizo} {cosa}, pero {nombre} {hizo} {cosa}.",
    ),
    words={
        "nombre": ("Pablo", "María", "Beatriz", "Óscar", "Lupe", "Fabio", "Víctor", "Eva"),
        "hizo": ("compró", "abrió", "pintó", "movió", "buscó", "lavó", "encontró", "rompió"),
        "cosa": (
            "un barco azul", "la mesa", "dos manzanas", "el huevo", "una bufanda", "mucho pan",
            "el puente viejo", "la luna", "una foto", "la ventana", "nueve libros", "el jamón",
        ),
        "donde": ("en la playa", "bajo el árbol", "por la noche", "con su primo", "en mi oficina"),
    },
)  # fmt: skip

ITALIAN: Final = Grammar(
    templates=(
        "{nome} {fece} {cosa} {dove}.",
        "perché {nome} {fece} {cosa} e {cosa}?",
        "oggi {nome} {fece} {cosa}, ma {nome} {fece} {cosa}.",
    ),
    words={
        "nome": ("Paolo", "Beatrice", "Ugo", "Francesca", "Umberto", "Viola", "Marco", "Emma"),
        "fece": ("comprò", "aprì", "vide", "mosse", "portò", "preparò", "lavò", "trovò"),
        "cosa": (
            "una barca", "il pomodoro", "due uova", "la finestra", "un buon vino", "il gelato",
            "la luna", "molti fiori", "una pizza", "il ponte", "nove gatti", "la zuppa",
        ),
        "dove": ("in piazza", "sul mare", "sotto il fiume", "con la mamma", "a Venezia"),
    },
)  # fmt: skip

FINNISH: Final = Grammar(
    templates=(
        "{nimi} {teki} {asia} {missa}.",
        "miksi {nimi} {teki} {asia} ja {asia}?",
        "tänään {nimi} {teki} {asia}, mutta {nimi} {teki} {asia}.",
    ),
    words={
        "nimi": ("Pekka", "Väinö", "Outi", "Helmi", "Eeva", "Yrjö", "Fanni", "Paavo"),
        "teki": ("osti", "avasi", "maalasi", "löysi", "pesi", "piilotti", "myi", "vei"),
        "asia": (
            "sinisen veneen", "vanhan pöydän", "kaksi omenaa", "ison kalan", "tyhjän pullon",
            "uuden hameen", "pehmeän villapaidan", "punaisen pallon", "viisi munaa", "voileivän",
            "mustan hevosen", "kuuman puuron",
        ),
        "missa": ("rannalla", "metsän keskellä", "yöllä", "ystävän luona", "bussissa"),
    },
)  # fmt: skip

CZECH: Final = Grammar(
    templates=(
        "{jmeno} {dela} {vec} {kde}.",
        "proč {jmeno} {dela} {vec} a {vec}?",
        "dnes {jmeno} {dela} {vec}, ale {jmeno} {dela} {vec}.",
    ),
    words={
        "jmeno": ("Pavel", "Božena", "Jiří", "Eva", "Václav", "Žofie", "Michal", "Ludmila"),
        "dela": ("kupuje", "otevírá", "maluje", "hledá", "myje", "vidí", "přináší", "schovává"),
        "vec": (
            "modrou loď", "starý most", "dvě jablka", "bílou košili", "horkou polévku",
            "čerstvý chléb", "pět vajec", "žlutý deštník", "krásnou květinu", "velkou rybu",
            "můj nový klobouk", "staré boty",
        ),
        "kde": ("na mostě", "u řeky", "pod stromem", "v Praze", "doma na zahradě"),
    },
)  # fmt: skip

CATALAN: Final = Grammar(
    templates=(
        "{nom} {fa} {cosa} {on}.",
        "per què {nom} {fa} {cosa} i {cosa}?",
        "avui {nom} {fa} {cosa}, però {nom} {fa} {cosa}.",
    ),
    words={
        "nom": ("Pau", "Mercè", "Jofre", "Júlia", "Bernat", "Empar", "Xavier", "Eulàlia"),
        "fa": ("compra", "obre", "pinta", "busca", "renta", "troba", "vol", "porta"),
        "cosa": (
            "una poma vermella", "el vaixell blau", "dues peres", "la finestra", "el pont vell",
            "un bon formatge", "nou llibres", "la lluna", "una flor groga", "peix fresc",
            "el gat petit", "un paraigua",
        ),
        "on": ("a la platja", "sota el pont", "amb la mare", "prop del riu", "a casa meva"),
    },
)  # fmt: skip

FOREIGN: Final[dict[str, Grammar]] = {
    "de": GERMAN,
    "fr": FRENCH,
    "es": SPANISH,
    "it": ITALIAN,
    "fi": FINNISH,
    "cs": CZECH,
    "ca": CATALAN,
}

ONSETS: Final = (
    "b", "p", "m", "f", "v", "w", "s", "t", "d", "n", "l", "r", "k", "g", "sh", "ch", "pr", "bl",
    "fl", "st", "sp", "tr", "br", "th", "h", "j", "",
)  # fmt: skip
NUCLEI: Final = ("a", "e", "i", "o", "u", "oo", "ee", "ai", "ou", "oa", "aw")
CODAS: Final = ("", "", "", "m", "p", "b", "f", "v", "n", "s", "t", "l", "sh", "k")


def babble(rng: random.Random) -> str:
    """A sentence of made-up words, for any language's voice: sounds in orders no text has."""
    words = []
    for _ in range(rng.randint(4, 9)):
        syllables = (
            rng.choice(ONSETS) + rng.choice(NUCLEI) + rng.choice(CODAS)
            for _ in range(rng.randint(1, 3))
        )
        words.append("".join(syllables))
    if len(words) > 5:
        words[3] += ","
    return " ".join(words).capitalize() + "."


def sentence(language: str, split: Split, rng: random.Random) -> str:
    """One sentence for a voice of this language, in espeak-ng's codes.

    Languages without a grammar of their own, and one sentence in six of the others, are babble.
    Held-out sentences are English whatever the language.
    """
    if split == "held_out":
        return ENGLISH_HELD_OUT.sentence(rng)
    grammar = ENGLISH_TRAIN if language.startswith("en") else FOREIGN.get(language)
    if grammar is None or rng.random() < 1 / 6:
        return babble(rng)
    return grammar.sentence(rng)
