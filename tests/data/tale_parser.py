"""A second reading of tales: labels and probability, from their English and the word lists alone.

Nothing is shared with the teller but the tables of words, so that each can find the other's mistakes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from minitx.data.tales import words
from minitx.data.tales.tale import Span

FORMS = {
    "opening": "One <time> <hero> and <friend> went to the <place>( with a <colour> <animal> called <pet>)?.",
    "counting": "<who> saw <count> <quality> <colour> <noun> at the <where>.",
    "agreeing": "The <subject> <near> the <landmark>( <near2> the <landmark2>)? <be> <state>.",
    "using": "<who> <verb> a <colour> <noun> and <other> <verb2> a <colour2> <noun2>.",
    "failing": "The <creature> didn't <verb> the <barrier> because it was too <reason>. "
    "<who> saw that the <it> was too <again>.",
    "finding": "<who> found <some> <colour> <noun> at the <where>. <it> <be> very <mood>.",
    "losing": "(The )?<owner> <lost> <her> <thing> because <she> <be> <reason>.",
    "lending": "<lender> <lent> <borrower> <her> <thing> because <she> <verb> <them>. "
    "Everybody knew that <one> <again> (the )?<other>.",
    "handing": "<subject> <verb> the <thing> <to> <other>. Now the <again> was in the bag of <holder>.",
    "calling": "<who> whistled for <called> and the <runner> <verb> a <colour> <noun>.",
    "doing": "<who> (<not> )?<verb> the <noun>. Later <again> saw that the <noun2> was <result>.",
    "causing": "<who> said that <she> <effect> because it was so <cause>.",
    "ordering": "<who> <one> the <noun> <before> <she> <two> the <noun2>. First <she2> <first> the <noun3>.",
    "watching": "The <watcher> saw the <watched> with a <thing>. So the <one> had the <again>.",
    "closing": "At last <leaver> left the <left> and <verb> a <colour> <noun>.",
}
PATTERNS = {
    form: re.compile(re.sub(r"<(\w+)>", r"(?P<\1>[\\w'-]+)", english.replace(".", r"\.") + "(?: |$)"))
    for form, english in FORMS.items()
}
SCENES = len(FORMS) - 2
REPEATED = {"name", "place", "repeat", "reference", "role", "holder", "attachment", "ambiguous"}
"""Kinds of a word that was said before."""


class Read(NamedTuple):
    """A label, as the text shows it."""

    kind: str
    word: Span
    source: Span
    target: Span
    others: tuple[Span, ...]


class Scene(NamedTuple):
    """A scene, its words by slot (those of the opening too), its length in words, its labels."""

    form: str
    said: dict[str, str]
    length: int
    span: Span
    labels: list[Read]


def read(text: str) -> tuple[list[Scene], float]:
    """The scenes of a tale, opening and closing too, and -log of its probability in nats."""
    scenes: list[Scene] = []
    spans: dict[str, Span] = {}
    draws, at = [len(("one", "two", "three"))], 0
    while at < len(text):
        [(form, match)] = [(form, m) for form, pattern in PATTERNS.items() if (m := pattern.match(text, at))]
        spans = {slot: spans[slot] for slot in ("hero", "friend", "place", "animal", "pet") if slot in spans}
        spans |= {slot: match.span(slot) for slot, word in match.groupdict().items() if word}
        said = {slot: text[slice(*span)] for slot, span in spans.items()}
        counts, labelled = read_scene(form, said)
        labels = [read_label(text, spans, label) for label in labelled]
        scenes.append(Scene(form, said, len(match[0].split()), match.span(), labels))
        draws += counts
        at = match.end()
    told = [scene.form for scene in scenes[1:-1]]
    assert (scenes[0].form, scenes[-1].form, len(set(told))) == ("opening", "closing", len(told))
    assert len(told) in (1, 2, 3)
    has_pet = "pet" in scenes[0].said
    draws += [SCENES - (not has_pet) - before for before in range(len(told))]
    return scenes, sum(map(math.log, draws))


def read_label(text: str, spans: dict[str, Span], label: str) -> Read:
    """A label written as "kind word<target~other", with slots for words."""
    kind, word, target, *others = re.split("[ <~]", label)
    before = text[: spans[word][0]].rstrip()
    source = len(before) - len(re.split(r"[ .]", before)[-1] or ".")
    if kind in REPEATED:
        assert text[slice(*spans[word])] == text[slice(*spans[target])]
    return Read(kind, spans[word], (source, len(before)), spans[target], tuple(spans[other] for other in others))


def read_scene(form: str, s: dict[str, str]) -> tuple[list[int], list[str]]:
    """Among how many choices each draw was, and the labels (see `read_label`); `s` has the words by slot."""
    table: Collection[str]
    if form == "opening":
        draws = [of(words.TIMES, s["time"]), of(words.NAMES, s["hero"]), of(words.NAMES, s["friend"], s["hero"])]
        if "pet" in s:
            draws += [of(column(words.ANIMALS, 0), s["animal"]), of(words.PETS, s["pet"]), colours(s)]
        return [*draws, of(words.PLACES, s["place"]), 2], []
    if form == "closing":
        return [*thing_done(s), colours(s)], ["name leaver<hero", "place left<place", "object noun<verb"]
    if form == "counting":
        group = group_of(s["noun"])
        draws = [things(s["noun"], number=s["count"] in words.MANY), of(group.qualities, s["quality"]), person(s)]
        draws += [of(words.ONE + words.MANY, s["count"]), colours(s)]
        return draws, ["determiner noun<count", "adjective noun<quality", "place where<place"]
    if form == "agreeing":
        number = {"was": 0, "were": 1}[s["be"]]
        draws = [2, of(column(words.ANIMALS, number), s["subject"]), of(words.STATES, s["state"])]
        for slot in ("", "2") if "near2" in s else ("",):
            draws += [of(words.NEAR, s["near" + slot]), of(column(words.LANDMARKS), s["landmark" + slot])]
        return [*draws, len(("short", "long"))], ["agreement be<subject"]
    if form == "using":
        group, group2 = group_of(s["noun"]), group_of(s["noun2"])
        assert group is not group2
        draws = [two_people(s, "who", "other"), *thing_done(s), len(words.GROUPS) - 1, of(group2.verbs, s["verb2"])]
        return [*draws, of(column(group2.nouns, 0), s["noun2"]), colours(s), colours(s, "2")], [
            "object noun<verb",
            "object noun2<verb2",
        ]
    if form == "failing":
        table, it = (
            (words.MOODS, "creature~barrier") if s["reason"] in words.MOODS else (words.SHAPES, "barrier~creature")
        )
        draws = [of(words.BARRIERS, s["verb"]), of(words.BARRIERS[s["verb"]], s["barrier"]), of(table, s["reason"])]
        draws += [2, of(column(words.ANIMALS, 0), s["creature"]), person(s)]
        return draws, [f"reference it<{it}", "repeat again<reason"]
    if form == "finding":
        number = int(s["some"] == "some")
        is_animal = s["noun"] in column(words.ANIMALS, number)
        draws = [of(column(words.ANIMALS, number), s["noun"]) if is_animal else things(s["noun"], number)]
        draws += [2, 2, of(words.MOODS if is_animal else words.MADE, s["mood"]), person(s), colours(s)]
        assert (s["some"], s["it"], s["be"]) == [("a", "It", "was"), ("some", "They", "were")][number]
        return draws, ["pronoun it<noun", "property mood<noun"]
    if form == "losing":
        owner, people = s["owner"], (s["hero"], s["friend"])
        tables: list[Collection[str]] = [people, words.WOMEN, words.MEN, column(words.ANIMALS)]
        [table] = [table for table in tables if owner in table]
        assert (s["she"], s["her"]) == (pronouns(owner)[0], pronouns(owner)[2])
        draws = [4, of(table, owner), of(words.LOST, s["lost"]), things(s["thing"]), of(words.WHY_LOST, s["reason"])]
        return draws, ["possessive her<owner", "pronoun she<owner"]
    if form == "lending":
        is_lender = s["them"] != "it"
        table, who, other = (
            (words.OF_LENDER, "lender", "borrower") if is_lender else (words.OF_BORROWER, "borrower", "thing")
        )
        assert (s["her"], s["she"], s["again"]) == (pronouns(s["lender"])[2], pronouns(s[who])[0], s["verb"])
        assert (s["them"], s["other"]) == (pronouns(s[other])[1], s[other])
        draws = [two_people(s, "lender", "borrower"), 2, of(table, s["verb"]), things(s["thing"])]
        labels = [f"role one<{who}~{'borrower' if is_lender else 'lender'}"] + [
            "role other<borrower~lender"
        ] * is_lender
        return [*draws, of(words.LENT, s["lent"])], labels
    if form == "handing":
        verbs, holder = {"to": (words.TO, "other~subject"), "from": (words.FROM, "subject~other")}[s["to"]]
        draws = [two_people(s, "subject", "other"), 2, of(verbs, s["verb"]), things(s["thing"])]
        return draws, ["repeat again<thing", f"holder holder<{holder}"]
    if form == "calling":
        assert group_of(s["noun"]) is words.FOOD
        draws = [person(s), len(words.FOOD.nouns), of(words.FOOD.verbs, s["verb"]), colours(s)]
        return draws, ["name called<pet", "name runner<animal", "object noun<verb"]
    if form == "doing":
        [chore] = [chore for chore in words.CHORES if chore.noun == s["noun"] == s["noun2"]]
        done = (chore.base, chore.otherwise) if "not" in s else (chore.past, chore.result)
        assert (s["verb"], s["result"], s.get("not", "didn't")) == (*done, "didn't")
        label = f"negation result<{'not' if 'not' in s else 'verb'}"
        return [person(s), len(words.CHORES), 2], ["name again<who", label]
    if form == "causing":
        assert (s["she"], s["cause"]) == (pronouns(s["who"])[0], words.CAUSES[s["effect"]])
        return [person(s), len(words.CAUSES)], ["pronoun she<who", "cause cause<effect"]
    if form == "ordering":
        past = {chore.noun: chore.past for chore in words.CHORES}
        first, noun = ("one", "noun") if s["before"] == "before" else ("two", "noun2")
        assert (s["one"], s["two"]) == (past[s["noun"]], past[s["noun2"]])
        assert (s["she"], s["she2"], s["first"]) == (pronouns(s["who"])[0], s["she"], s[first])
        assert s["before"] in ("before", "after")
        assert s["noun3"] == s[noun]
        draws = [person(s), 2, len(past), of(past, s["noun2"], s["noun"])]
        return draws, ["pronoun she2<who", f"time first<{first}~{'two' if first == 'one' else 'one'}"]
    assert form == "watching"
    draws = [of(words.PEOPLE, s["watcher"]), of(words.PEOPLE, s["watched"], s["watcher"]), 3]
    if s["thing"] in words.OF_EITHER:
        either = "watcher~watched" if s["one"] == s["watcher"] else "watched~watcher"
        return [*draws, of(words.OF_EITHER, s["thing"]), 2], [f"ambiguous one<{either}", "repeat again<thing"]
    is_watcher = s["thing"] in words.OF_WATCHER
    label = f"attachment one<{'watcher~watched' if is_watcher else 'watched~watcher'}"
    return [*draws, of(words.OF_WATCHER if is_watcher else words.OF_WATCHED, s["thing"])], [label, "repeat again<thing"]


def of(table: Collection[str], word: str, but: str | None = None) -> int:
    """How many choices there were for a word of a table."""
    assert [*table].count(word) == 1, word
    assert word != but
    return len(table) - (but is not None)


def column(table: Iterable[words.Noun], number: int | None = None) -> list[str]:
    """Singulars (0), plurals (1), or both."""
    return [word for noun in table for word in (noun if number is None else noun[number : number + 1])]


def group_of(noun: str) -> words.Group:
    """The only group with a noun."""
    [group] = [group for group in words.GROUPS if noun in column(group.nouns)]
    return group


def things(noun: str, number: int = 0) -> int:
    """Choices for a thing: of a group, and of a noun of that group."""
    return len(words.GROUPS) * of(column(group_of(noun).nouns, number), noun)


def thing_done(s: dict[str, str]) -> list[int]:
    """Choices for a verb and its object."""
    return [things(s["noun"]), of(group_of(s["noun"]).verbs, s["verb"])]


def colours(s: dict[str, str], suffix: str = "") -> int:
    return of(words.COLOURS, s["colour" + suffix])


def person(s: dict[str, str]) -> int:
    return of((s["hero"], s["friend"]), s["who"])


def two_people(s: dict[str, str], one: str, other: str) -> int:
    assert {s[one], s[other]} == {s["hero"], s["friend"]}
    return 2


def pronouns(owner: str) -> tuple[str, str, str]:
    """Subject, object and possessive."""
    if owner in (*words.GIRLS, *words.WOMEN):
        return "she", "her", "her"
    if owner in (*words.BOYS, *words.MEN):
        return "he", "him", "his"
    return ("they", "them", "their") if owner in column(words.ANIMALS, 1) else ("it", "it", "its")
