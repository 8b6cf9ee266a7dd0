"""The words of the tales, in tables that may be changed: every table is drawn from evenly.

Words that follow "a" begin with a consonant. A plural is written beside its singular.
"""

from typing import NamedTuple

Noun = tuple[str, str]
"""Singular and plural."""


def listed(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


def nouns(text: str) -> tuple[Noun, ...]:
    """Nouns from "fox/foxes dog": without a slash the plural ends in s."""
    pairs = (word.partition("/") for word in text.split())
    return tuple((singular, plural or f"{singular}s") for singular, _, plural in pairs)


class Group(NamedTuple):
    """Things of one use: what is done with them, and what they are like."""

    nouns: tuple[Noun, ...]
    verbs: tuple[str, ...]
    """"They ate a plum", and of these things alone."""
    qualities: tuple[str, ...]
    """Adjectives of these things alone."""


FOOD = Group(
    nouns("plum pear carrot cake pie nut bun"),
    ("ate", "tasted", "chewed", "peeled"),
    ("ripe", "sweet", "juicy", "tasty"),
)
TEXTS = Group(
    nouns("book notebook letter poem diary/diaries card story/stories"),
    ("read", "wrote", "copied", "translated"),
    ("printed", "thrilling", "handwritten", "boring"),
)
CLOTHES = Group(
    nouns("hat coat scarf/scarves dress/dresses shirt sweater glove"),
    ("wore", "sewed", "knitted", "ironed"),
    ("woollen", "striped", "cosy", "buttoned"),
)
MUSIC = Group(
    nouns("drum flute guitar violin trumpet piano banjo"),
    ("played", "tuned", "practised", "strummed"),
    ("tuneful", "shrill", "noisy", "silvery"),
)
VEHICLES = Group(
    nouns("bike cart boat sled wagon scooter truck"),
    ("rode", "steered", "parked", "raced"),
    ("speedy", "rattling", "wooden", "shaky"),
)
GROUPS = (FOOD, TEXTS, CLOTHES, MUSIC, VEHICLES)

GIRLS = listed("Sara Maya Anna Lily Ella Nora Rosa Emma Clara Julia Mia Zoe Ruth Alice Lucy Eva")
BOYS = listed("Tom Ben Max Leo Sam Jack Paul Adam Noah Oscar Felix Hugo Luke Peter Simon Karl")
NAMES = GIRLS + BOYS
PETS = listed("Rusty Pip Coco Bella Luna Nemo Ziggy Toby Misty Rex Daisy Bruno Fluffy Shadow Biscuit Pepper")
WOMEN = listed("woman girl queen princess aunt grandmother witch actress")
MEN = listed("man boy king prince uncle grandfather wizard knight")
PEOPLE = listed(
    "man woman astronomer farmer sailor doctor teacher painter baker pirate king queen soldier gardener singer shepherd"
)
ANIMALS = nouns(
    "animal fox/foxes dog cat horse goat cow lamb duck goose/geese mouse/mice rabbit bear wolf/wolves hen "
    "pony/ponies donkey squirrel hedgehog tiger"
)
COLOURS = listed("red blue green yellow brown white black grey")
ONE, MANY = ("a", "one"), ("two", "three", "four", "some", "many")
LANDMARKS = nouns("house tree fence pond well barn tower bench/benches gate rock bush/bushes statue bank")
NEAR = ("near", "behind", "beside", "opposite")
PLACES = listed(
    "park forest market beach farm castle village garden harbour school museum island zoo meadow library station camp "
    "valley mill circus bank"
)
TIMES = ("morning", "afternoon", "evening", "day", "night")

BARRIERS = {
    "cross": ("street", "river", "bridge", "road", "field"),
    "climb": ("hill", "wall", "ladder", "mountain"),
    "enter": ("cave", "tunnel", "cellar", "attic"),
}
"""What an animal may not manage to do, and with what."""
MOODS = listed("tired hungry sleepy young weak afraid lazy shy")
"""What an animal may be, and no thing."""
SHAPES = listed("wide steep dark narrow muddy slippery deep crowded")
"""What a street or a cave may be, and no animal."""
STATES = ("asleep", "quiet", "happy", "wet", "lonely", "safe")
"""What animals may be."""
MADE = ("rusty", "costly", "fragile", "shabby", "modern", "useful")
"""What things may be, and no animal."""

LOST = ("lost", "hid", "dropped", "forgot", "kept", "sold")
WHY_LOST = ("careless", "busy", "nervous", "proud", "clever", "bored")
LENT = ("lent", "gave", "showed")
OF_LENDER = ("trusted", "loved", "admired", "missed")
"""As in "because she trusted her": she is the one who lends."""
OF_BORROWER = ("needed", "wanted", "liked", "deserved")
"""As in "because she needed it": she is the one who borrows."""
TO = ("gave", "sold", "handed", "sent")
FROM = ("took", "bought", "borrowed", "stole")


class Chore(NamedTuple):
    """Something that is done or not, and what follows either way."""

    base: str
    past: str
    noun: str
    result: str
    otherwise: str


CHORES = (
    Chore("water", "watered", "garden", "fresh", "dry"),
    Chore("close", "closed", "door", "shut", "open"),
    Chore("light", "lit", "stove", "warm", "cold"),
    Chore("polish", "polished", "mirror", "shiny", "dull"),
    Chore("feed", "fed", "baby", "content", "fussy"),
    Chore("mend", "mended", "chair", "sturdy", "wobbly"),
    Chore("fill", "filled", "bucket", "full", "empty"),
    Chore("cook", "cooked", "soup", "ready", "raw"),
    Chore("wash", "washed", "plate", "clean", "dirty"),
    Chore("paint", "painted", "wardrobe", "bright", "pale"),
)
CAUSES = {
    "shivered": "cold",
    "sweated": "hot",
    "slipped": "icy",
    "hurried": "late",
    "stumbled": "gloomy",
    "blinked": "sunny",
    "shouted": "loud",
    "coughed": "dusty",
    "whispered": "silent",
    "yawned": "dull",
}
"""What one did, because it was so …"""

OF_WATCHER = ("lens", "spyglass", "magnifier", "periscope")
"""One may see somebody with it; nobody is told apart by it."""
OF_WATCHED = ("beard", "limp", "ponytail", "smile", "dimple")
"""One may have it; nobody sees with it."""
OF_EITHER = ("telescope", "camera", "torch", "lantern", "flashlight")
"""Both: "The man saw the astronomer with a telescope"."""
