"""What happens in a tale: each function tells one scene, in one or two sentences, and labels the words it decides.

A scene draws its words so that an earlier word is the only way to know a later one.
"""

from collections.abc import Callable
from typing import NamedTuple

from minitx.data.tales import words
from minitx.data.tales.tale import Needed, Reason, Teller, needed, one_of, pronouns
from minitx.data.tales.words import GROUPS, Group


class Cast(NamedTuple):
    """Who is in a tale, and where it plays."""

    hero: str
    friend: str
    place: str
    animal: str | None
    pet: str | None
    """The animal's name."""


Scene = Callable[[Teller, Cast], None]


def opening(teller: Teller) -> Cast:
    """Two people, a place, perhaps an animal with a name."""
    time, hero = teller.pick(words.TIMES), teller.pick(words.NAMES)
    friend, place = teller.pick(words.NAMES, hero), teller.pick(words.PLACES)
    if teller.pick((False, True)):
        cast = Cast(hero, friend, place, teller.pick(words.ANIMALS)[0], teller.pick(words.PETS))
        sentence = "One {time} {hero} and {friend} went to the {place} with a {colour} {animal} called {pet}."
        teller.say(sentence, time=time, **cast._asdict(), colour=teller.pick(words.COLOURS))
        return cast
    teller.say("One {time} {hero} and {friend} went to the {place}.", time=time, hero=hero, friend=friend, place=place)
    return Cast(hero, friend, place, None, None)


def closing(teller: Teller, cast: Cast) -> None:
    """The hero of the first sentence leaves its place."""
    verb, noun, rivals = drawn_object(teller, teller.pick(GROUPS))
    teller.say(
        "At last {hero} left the {place} and {verb} a {colour} {noun}.",
        hero=needed(cast.hero, "name", "hero", [cast.friend]),
        place=place_again(teller, cast),
        verb=verb,
        colour=teller.pick(words.COLOURS),
        noun=needed(noun, "object", "verb", rivals, (verb, noun)),
    )


def counting(teller: Teller, cast: Cast) -> None:
    """The determiner decides the number of a noun, the first adjective what it can be."""
    group, count = teller.pick(GROUPS), teller.pick(words.ONE + words.MANY)
    noun, many = teller.pick(group.nouns), count in words.MANY
    quality = teller.pick(group.qualities)
    by_count = Reason("determiner", "count", (noun[not many],))
    by_quality = Reason("adjective", "quality", tuple(of_other_groups(teller, group, many)))
    teller.say(
        "{who} saw {count} {quality} {colour} {noun} at the {where}.",
        who=teller.pick((cast.hero, cast.friend)),
        count=count,
        quality=quality,
        colour=teller.pick(words.COLOURS),
        noun=Needed(noun[many], (by_count, by_quality)),
        where=place_again(teller, cast),
    )


def agreeing(teller: Teller, cast: Cast) -> None:
    """The verb agrees with its subject, not with a noun between."""
    many, is_long = teller.pick((0, 1)), teller.pick((False, True))
    subject, landmark = teller.pick(words.ANIMALS)[many], teller.pick(words.LANDMARKS)[teller.pick((0, 1))]
    phrase, more = "", {}
    if is_long:
        phrase = " {by} the {behind}"
        more = {"by": teller.pick(words.NEAR), "behind": teller.pick(words.LANDMARKS)[teller.pick((0, 1))]}
    teller.say(
        "The {subject} {near} the {landmark}" + phrase + " {be} {state}.",
        subject=subject,
        near=teller.pick(words.NEAR),
        landmark=landmark,
        **more,
        be=needed(("was", "were")[many], "agreement", "subject", [("were", "was")[many]], (subject, landmark)),
        state=teller.pick(words.STATES),
    )


def using(teller: Teller, cast: Cast) -> None:
    """The verb decides what its object can be."""
    who, other = two_people(teller, cast)
    group = teller.pick(GROUPS)
    verb, noun, rivals = drawn_object(teller, group)
    verb2, noun2, rivals2 = drawn_object(teller, teller.pick(GROUPS, group))
    teller.say(
        "{who} {verb} a {colour} {noun} and {other} {verb2} a {colour2} {noun2}.",
        who=who,
        verb=verb,
        colour=teller.pick(words.COLOURS),
        noun=needed(noun, "object", "verb", rivals, (verb, noun)),
        other=other,
        verb2=verb2,
        colour2=teller.pick(words.COLOURS),
        noun2=needed(noun2, "object", "verb2", rivals2, (verb2, noun2)),
    )


def failing(teller: Teller, cast: Cast) -> None:
    """It was too tired, or too wide: the adjective decides what "it" is, and the next sentence says it."""
    verb, animal = teller.pick(tuple(words.BARRIERS)), teller.pick(words.ANIMALS)[0]
    barrier, is_animal = teller.pick(words.BARRIERS[verb]), teller.pick((True, False))
    why, other = (words.MOODS, words.SHAPES) if is_animal else (words.SHAPES, words.MOODS)
    both, reason = {"creature": animal, "barrier": barrier}, teller.pick(why)
    teller.say(
        "The {creature} didn't {verb} the {barrier} because it was too {reason}.", **both, verb=verb, reason=reason
    )
    teller.say(
        "{who} saw that the {it} was too {reason}.",
        who=teller.pick((cast.hero, cast.friend)),
        it=one_of(both, "creature" if is_animal else "barrier", "reference"),
        reason=needed(reason, "repeat", "reason", teller.rivals(other)),
    )


def finding(teller: Teller, cast: Cast) -> None:
    """The noun decides its pronoun, and what it can be."""
    many, is_animal = teller.pick((0, 1)), teller.pick((True, False))
    noun = (teller.pick(words.ANIMALS) if is_animal else teller.pick(teller.pick(GROUPS).nouns))[many]
    why, other = (words.MOODS, words.MADE) if is_animal else (words.MADE, words.MOODS)
    teller.say(
        "{who} found {some} {colour} {noun} at the {where}.",
        who=teller.pick((cast.hero, cast.friend)),
        some=("a", "some")[many],
        colour=teller.pick(words.COLOURS),
        noun=noun,
        where=cast.place,
    )
    teller.say(
        "{it} {be} very {mood}.",
        it=needed(("it", "they")[many], "pronoun", "noun", ["she", "he", ("they", "it")[many]]),
        be=("was", "were")[many],
        mood=needed(teller.pick(why), "property", "noun", teller.rivals(other)),
    )


def losing(teller: Teller, cast: Cast) -> None:
    """The owner decides possessive and pronoun, by gender and number."""
    table = teller.pick(((cast.hero, cast.friend), words.WOMEN, words.MEN, words.ANIMALS))
    drawn = teller.pick(table)
    owner = drawn if isinstance(drawn, str) else drawn[teller.pick((0, 1))]
    she, _, her = pronouns(owner)
    the = "" if owner in words.NAMES else "the "
    teller.say(
        the + "{owner} {lost} {her} {thing} because {she} {be} {reason}.",
        owner=owner,
        lost=teller.pick(words.LOST),
        her=needed(her, "possessive", "owner", sorted({"her", "his", "its", "their"} - {her})),
        thing=teller.pick(teller.pick(GROUPS).nouns)[0],
        she=pronoun(she, "owner"),
        be="were" if she == "they" else "was",
        reason=teller.pick(words.WHY_LOST),
    )


def lending(teller: Teller, cast: Cast) -> None:
    """Who trusted or needed: the verb decides which of two people the pronoun is, and the next sentence says it."""
    lender, borrower = two_people(teller, cast)
    by_lender = teller.pick((True, False))
    verb = teller.pick(words.OF_LENDER if by_lender else words.OF_BORROWER)
    thing = teller.pick(teller.pick(GROUPS).nouns)[0]
    who, both = "lender" if by_lender else "borrower", {"lender": lender, "borrower": borrower}
    teller.say(
        "{lender} {lent} {borrower} {her} {thing} because {she} {verb} {them}.",
        **both,
        lent=teller.pick(words.LENT),
        her=pronouns(lender)[2],
        thing=thing,
        she=pronouns(both[who])[0],
        verb=verb,
        them=pronouns(borrower)[1] if by_lender else "it",
    )
    teller.say(
        "Everybody knew that {who} {verb} " + ("{other}." if by_lender else "the {thing}."),
        who=one_of(both, who, "role"),
        verb=verb,
        **({"other": one_of(both, "borrower", "role")} if by_lender else {"thing": thing}),
    )


def handing(teller: Teller, cast: Cast) -> None:
    """Who has it now: the one that it was given to, or the one that took it."""
    giver, taker = two_people(teller, cast)
    gave, group = teller.pick((True, False)), teller.pick(GROUPS)
    thing = teller.pick(group.nouns)[0]
    both = {"subject": giver, "other": taker} if gave else {"subject": taker, "other": giver}
    teller.say(
        "{subject} {verb} the {thing} {to} {other}.",
        **both,
        verb=teller.pick(words.TO if gave else words.FROM),
        thing=thing,
        to="to" if gave else "from",
    )
    teller.say(
        "Now the {thing} was in the bag of {taker}.",
        thing=needed(thing, "repeat", "thing", of_other_groups(teller, group)),
        taker=one_of(both, "other" if gave else "subject", "holder"),
    )


def calling(teller: Teller, cast: Cast) -> None:
    """The animal of the first sentence is needed by name."""
    assert cast.pet is not None
    assert cast.animal is not None
    verb, noun, rivals = drawn_object(teller, words.FOOD)
    pets, animals = teller.rivals(words.PETS, cast.pet), [noun[0] for noun in words.ANIMALS]
    teller.say(
        "{who} whistled for {called} and the {runner} {verb} a {colour} {noun}.",
        who=teller.pick((cast.hero, cast.friend)),
        called=needed(cast.pet, "name", "pet", [cast.hero, cast.friend, *pets], (cast.animal, cast.pet)),
        runner=needed(cast.animal, "name", "animal", teller.rivals(animals, cast.animal)),
        verb=verb,
        colour=teller.pick(words.COLOURS),
        noun=needed(noun, "object", "verb", rivals, (verb, noun)),
    )


def doing(teller: Teller, cast: Cast) -> None:
    """What did not happen is not true later."""
    who, other = two_people(teller, cast)
    chore, done = teller.pick(words.CHORES), teller.pick((True, False))
    results = (chore.result, chore.otherwise) if done else (chore.otherwise, chore.result)
    teller.say(
        f"{{who}} {'' if done else '{not_} '}{{verb}} the {{noun}}.",
        who=who,
        **({} if done else {"not_": "didn't"}),
        verb=chore.past if done else chore.base,
        noun=chore.noun,
    )
    teller.say(
        "Later {who} saw that the {noun} was {result}.",
        who=needed(who, "name", "who", [other]),
        noun=chore.noun,
        result=needed(results[0], "negation", "verb" if done else "not_", [results[1]]),
    )


def causing(teller: Teller, cast: Cast) -> None:
    """The effect decides the cause."""
    who = teller.pick((cast.hero, cast.friend))
    effect = teller.pick(tuple(words.CAUSES))
    she = pronouns(who)[0]
    teller.say(
        "{who} said that {she} {effect} because it was so {cause}.",
        who=who,
        she=pronoun(she, "who"),
        effect=effect,
        cause=needed(
            words.CAUSES[effect], "cause", "effect", teller.rivals([*words.CAUSES.values()], words.CAUSES[effect])
        ),
    )


def ordering(teller: Teller, cast: Cast) -> None:
    """Before and after decide what came first."""
    who, before = teller.pick((cast.hero, cast.friend)), teller.pick((True, False))
    one = teller.pick(words.CHORES)
    two = teller.pick(words.CHORES, one)
    first, both = one if before else two, {"one": one.past, "two": two.past}
    she = pronouns(who)[0]
    teller.say(
        "{who} {one} the {noun} {before} {she} {two} the {noun2}.",
        who=who,
        **both,
        noun=one.noun,
        before="before" if before else "after",
        she=she,
        noun2=two.noun,
    )
    teller.say(
        "First {she} {verb} the {noun}.",
        she=pronoun(she, "who"),
        verb=one_of(both, "one" if before else "two", "time"),
        noun=first.noun,
    )


def watching(teller: Teller, cast: Cast) -> None:
    """With a telescope, a spyglass, a beard: some nouns leave open which of the two had it, some do not."""
    watcher = teller.pick(words.PEOPLE)
    watched = teller.pick(words.PEOPLE, watcher)
    table = teller.pick((words.OF_WATCHER, words.OF_WATCHED, words.OF_EITHER))
    thing = teller.pick(table)
    kind = "ambiguous" if table is words.OF_EITHER else "attachment"
    slots = {words.OF_WATCHER: ("watcher",), words.OF_WATCHED: ("watched",)}
    slot = teller.pick(slots.get(table, ("watcher", "watched")))
    both = {"watcher": watcher, "watched": watched}
    tables = [other for other in (words.OF_WATCHER, words.OF_WATCHED, words.OF_EITHER) if other is not table]
    teller.say("The {watcher} saw the {watched} with a {thing}.", **both, thing=thing)
    teller.say(
        "So the {who} had the {thing}.",
        who=one_of(both, slot, kind),
        thing=needed(thing, "repeat", "thing", [teller.rivals(other)[0] for other in tables]),
    )


SCENES: tuple[Scene, ...] = (
    counting, agreeing, using, failing, finding, losing, lending, handing, doing, causing, ordering, watching, calling,
)  # fmt: skip
"""Calling comes last: it needs an animal with a name."""


def two_people(teller: Teller, cast: Cast) -> tuple[str, str]:
    """Hero and friend in either order."""
    return teller.pick(((cast.hero, cast.friend), (cast.friend, cast.hero)))


def place_again(teller: Teller, cast: Cast) -> Needed:
    """The place of the first sentence."""
    return needed(cast.place, "place", "place", teller.rivals(words.PLACES, cast.place))


def drawn_object(teller: Teller, group: Group) -> tuple[str, str, list[str]]:
    """A verb, its object, and things that the verb does not fit."""
    verb, noun = teller.pick(group.verbs), teller.pick(group.nouns)[0]
    return verb, noun, of_other_groups(teller, group)


def of_other_groups(teller: Teller, group: Group, many: bool = False) -> list[str]:
    """A thing, or several, of each other group."""
    return [teller.rivals(other.nouns)[0][many] for other in GROUPS if other is not group]


def pronoun(she: str, owner: str) -> Needed:
    """The pronoun of the word in slot `owner`."""
    return needed(she, "pronoun", owner, sorted({"she", "he", "it", "they"} - {she}))
