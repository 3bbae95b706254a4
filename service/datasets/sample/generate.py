"""Write the bundled sample dataset: `python -m service.datasets.sample.generate [--check]`.

Every row is put together from frames with slots. The last third of every pool, frames and fillers
alike, is kept from training and validation. A test text has either a frame or fillers from that
part (a coin decides), so no test text is a copy of a training text with one word changed in a
slot that training saw filled that way. Only `Random.random` is used, the one method whose sequence
Python promises to keep, so the files are the same bytes on every version.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

SEED = 2024
HERE = Path(__file__).parent

# Rows per split and group, as (hate, normal). The shares differ by group on purpose: a model that
# learns "this group means hate" is then visible in the per-group error rates.
COUNTS: dict[str, dict[str, tuple[int, int]]] = {
    "train": {"lgbtq": (46, 74), "mexican": (38, 82), "middle_east": (62, 58)},
    "validation": {"lgbtq": (15, 25), "mexican": (13, 27), "middle_east": (21, 19)},
    "test": {"lgbtq": (38, 62), "mexican": (32, 68), "middle_east": (52, 48)},
}

GROUPS: dict[str, dict[str, str]] = {
    "lgbtq": {
        "who": "gay people / lesbian couples / trans people / gay couples / queer people / gay men /"
        " bisexual people / lesbians / trans women",
        "adj": "gay / lesbian / trans / queer / bisexual",
        "event": "the Pride parade / the drag show / the rainbow choir evening / the Pride picnic",
    },
    "mexican": {
        "who": "Mexicans / Mexican families / Mexican workers / Mexican immigrants /"
        " people from Mexico / Mexican couples / Mexican men / Mexican women",
        "adj": "Mexican / Mexican-born / Mexican American",
        "event": "the Mexican street fair / the mariachi night / the Day of the Dead market /"
        " the taco festival",
    },
    "middle_east": {
        "who": "Arabs / Syrians / Arab families / Iraqi refugees / people from the Middle East /"
        " Lebanese families / Syrian refugees / Iranians / Arab men / Arab women",
        "adj": "Arab / Syrian / Iraqi / Lebanese / Iranian",
        "event": "the Arab film week / the Lebanese food fair / the Syrian choir evening /"
        " the Persian new year party",
    },
}

# Fillers that training may see come first; the last third is kept for the test split.
FILLERS: dict[str, str] = {
    "place": "our street / this town / our building / the market / the library / our school /"
    " the football club / the swimming pool / the village / the church hall / the campus /"
    " the park / the office / the gym / the clinic / the neighbourhood / the playground /"
    " the bakery / the block / the community garden / the bus station / the tennis club",
    "those": "those people / these people / people like that / folk like them / such people /"
    " their kind",
    "someone": "a man on the bus / my uncle / a caller on the radio / a customer / my old coach /"
    " a neighbour / someone at work / the landlord / a guy online / a parent at the meeting /"
    " our plumber / a woman in the queue",
    "bad": "should not be allowed to rent here / do not belong in {place} / ruin {place} /"
    " cannot be trusted / should be kept away from our children / are all liars /"
    " bring nothing but trouble to {place} / should be kept out of {place} / are not like decent"
    " people / have no place in this country / make {place} unsafe / are not worth helping /"
    " should all be sent away / are filthy and rude / are dragging {place} down /"
    " deserve to be treated as second class / are too stupid for real jobs / spread disease /"
    " should be thrown out of {place} / are a threat to {place} / are destroying our way of life /"
    " should never be served in {place} / are criminals, all of them / are beneath the rest of us /"
    " are taking over {place} and must be stopped / are a plague on {place} /"
    " should lose the right to vote / are dirty and lazy / are the worst thing to happen to {place}"
    " / should be banned from {place} / are not fit to raise children / are crooks by nature /"
    " have no right to live near {place} / poison {place} / ought to be driven out of {place} /"
    " do not deserve the same rights as us",
    "good": "should be allowed to rent here / belong in {place} as much as anyone / make {place}"
    " better / can be trusted with the keys / are great with our children / work hard at {place} /"
    " bring a lot of life to {place} / have done so much for {place} / are kind and funny / keep"
    " {place} clean / are good neighbours / are not so different from us / helped us rebuild"
    " {place} / are welcome in {place} / always stop to help / deserve the same rights as us /"
    " are honest people / should be proud of what they built at {place} / run {place} really well",
    "do": "are moving in near {place} / meet every week at {place} / will open a shop next to"
    " {place} / were interviewed at {place} / share a table at {place} / pay the same rent near"
    " {place} / have asked for a room at {place} / took part in a survey at {place} / wait for the"
    " early bus at {place} / are listed in the new guide to {place} / play cards at {place} /"
    " have a stall at {place}",
    "reject": "I told him he was wrong / that is simply not true / nobody should talk like that /"
    " I said they are my friends and walked off / we asked him to stop / what a cruel thing to say /"
    " it made me angry and I spoke up / I do not accept that kind of talk / I reported it / that is"
    " unfair and I said so / we should stand up to such talk / he is wrong and I will keep saying so",
    "agree": "he is right / I could not agree more / finally someone says it / it is true / I have"
    " said so for years / good for him / so do I, and I am not sorry / exactly my view / and he has"
    " a point",
    "thing": "ticket machine / heating / coffee / parking app / printer / new website / bus /"
    " lift / sandwich / wifi / referee / phone company",
    "rant": "is useless and should be thrown out / makes me furious / is the worst I have ever seen /"
    " is a disgrace / ruins my whole week / is filthy and broken again / cannot be trusted / is"
    " total rubbish, ban it / is stupid and should be kept out of {place}",
    "job": "nurse / teacher / bus driver / engineer / cook / student / barber / dentist / farmer",
}

FRAMES: dict[str, dict[str, str]] = {
    "hate": {
        "hostile_direct": "{who} {bad}. / I will say it: {who} {bad}. / {who} {bad}, and they {bad}."
        " / let us be honest, {who} {bad}. / I am sick of {who}, they {bad}. / why does nobody admit"
        " that {who} {bad}? / my view on {who}? They {bad}. / every day I see it at {place}: {who}"
        " {bad}. / we all know {who} {bad}. / if you ask me, {who} {bad}, simple as that. / nothing"
        " personal, but {who} {bad}. / the council will not listen, but {who} {bad}.",
        "hostile_implicit": "the less I see of {who} at {place}, the better. / I used to love"
        " {place}, then {who} moved in and I left in disgust. / I would never hire {who}, and nobody"
        " with sense would. / when {who} come to {place}, I hold on to my wallet. / I took my kids"
        " out of {place} because of {who}. / no wonder {place} is a mess, look how many {who} are"
        " there. / I would rather close {place} than open it to {who}. / once {who} show up at"
        " {place}, decent folk stay away. / keep {who} where I do not have to look at them.",
        "hostile_no_group_word": "{those} {bad}. / we do not want {those} in {place}, they {bad}. /"
        " I saw {those} again at {place}. They {bad}. / you know who I mean: {those} {bad}. / not one of"
        " them should live near {place}, {those} {bad}. / send them all back, {those} {bad}. / who"
        " let {those} into {place}? They {bad}. / they are back at {place}, and {those} {bad}.",
        "hostile_quoted": "{someone} said {who} {bad}, and {agree}. / {someone} told me {who} {bad}."
        " {agree}. / {someone} wants us to believe {who} {good}. What a lie, they {bad}. / the paper"
        " claims {who} {good}. No, they {bad}. / read today that {who} {bad}: {agree}.",
    },
    "normal": {
        "counter_speech": "{someone} said {who} {bad}. {reject}. / {someone} told me {those} {bad},"
        " and {reject}. / when {someone} claimed {who} {bad}, {reject}. / it hurts to hear that"
        " {who} {bad}. They {good}. / stop saying {who} {bad}, they {good}. / anyone who thinks"
        " {who} {bad} has never met them. / posters at {place} said {who} {bad}. We took them down,"
        " {reject}. / it is a lie that {who} {bad}. / heard again that {those} {bad}, but {reject}.",
        "neutral_mention": "{who} {do}. / I read that {who} {do}. / some {who} {do}, others do not."
        " / my cousin works with {who} who {do}. / do you know whether {who} {do}? / according to"
        " the list, {who} {do}. / there is a talk about {who} at {place} tonight.",
        "positive": "{who} {good}. / I am glad that {who} {good}. / my {adj} {job} friend and his"
        " family {good}. / if you ask me, {who} {good}. / every day I see it at {place}: {who}"
        " {good}. / {event} was lovely, {who} {good}. / we all know {who} {good}. / proud to say"
        " that {who} {good}.",
        "news": "police are looking for whoever attacked {adj} shoppers near {place}. / {who} were"
        " turned away from {place}, a court heard on Monday. / a {job} who insulted {who} at {place}"
        " has been fined. / {event} was called off because of the storm. / a report found that"
        " {who} near {place} pay more rent than others. / the mayor opened {event} at {place}.",
        "everyday": "{those} next door left soup for us, they {good}. / a {adj} {job} fixed my bike"
        " behind {place}. / my {adj} neighbour and I missed the bus to {place} again. / we had"
        " lunch with {those} from {place} and they {good}. / are you coming to {event} with us? /"
        " my {adj} boss is off sick, so I will open {place} tomorrow.",
        "complaint_not_at_group": "the {thing} at {place} {rant}. / I am sick of it, the {thing}"
        " {rant}. / the {thing} {rant}, even my {adj} {job} friend says so. / {event} was fun but"
        " the {thing} {rant}. / honestly, this {thing} {rant}, send it back. / went to {event} with"
        " friends, and the {thing} {rant}.",
    },
}

# How often each finer label occurs within its label.
WEIGHTS: dict[str, int] = {
    "hostile_direct": 9, "hostile_implicit": 4, "hostile_no_group_word": 5, "hostile_quoted": 2,
    "counter_speech": 3, "neutral_mention": 5, "positive": 5, "news": 2, "everyday": 4,
    "complaint_not_at_group": 3,
}  # fmt: skip


def pool(text: str) -> list[str]:
    """The items of a pool, which are written with slashes between them."""
    return [" ".join(item.split()) for item in text.split("/")]


def pick(items: Sequence[str], rng: Random) -> str:
    return items[int(rng.random() * len(items))]


def seen(items: list[str]) -> list[str]:
    """The part of a pool that training may see."""
    return items[: len(items) - len(items) // 3]


def unseen(items: list[str]) -> list[str]:
    """The part of a pool that is kept for the test split."""
    return items[len(items) - len(items) // 3 :]


def write_text(label: str, detail: str, group: str, split: str, rng: Random) -> str:
    """One text: a frame with its slots filled, those of the fillers included."""
    frames = pool(FRAMES[label][detail])
    new_frame = split == "test" and rng.random() < 0.5
    new_fillers = split == "test" and not new_frame
    text = pick(unseen(frames) if new_frame else seen(frames), rng)
    while slot := re.search(r"\{(\w+)\}", text):
        name = slot[1]
        if name in GROUPS[group]:
            choices = pool(GROUPS[group][name])
        else:
            fillers = pool(FILLERS[name])
            choices = unseen(fillers) if new_fillers else seen(fillers)
        text = text[: slot.start()] + pick(choices, rng) + text[slot.end() :]
    return re.sub(r"(^|[.?] )([a-z])", lambda m: m[1] + m[2].upper(), text)


def make() -> dict[str, list[dict[str, str]]]:
    """All splits. No text occurs twice, whatever its case."""
    rng = Random(SEED)
    used: set[str] = set()
    splits: dict[str, list[dict[str, str]]] = {}
    for split, groups in COUNTS.items():
        rows: list[tuple[float, dict[str, str]]] = []
        for group, counts in groups.items():
            for label, count in zip(("hate", "normal"), counts, strict=True):
                details = [name for name in FRAMES[label] for _ in range(WEIGHTS[name])]
                made = 0
                while made < count:
                    detail = details[made % len(details)]
                    text = write_text(label, detail, group, split, rng)
                    if not 6 <= len(text.split()) <= 30 or text.lower() in used:
                        continue
                    used.add(text.lower())
                    made += 1
                    row = {"text": text, "label": label, "group": group, "source": "template"}
                    rows.append((rng.random(), row | {"detail": detail}))
        rows.sort(key=lambda pair: pair[0])
        splits[split] = [
            {"id": f"{split}-{number:03}"} | row for number, (_, row) in enumerate(rows, start=1)
        ]
    return splits


def render(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the bundled sample dataset.")
    parser.add_argument("--check", action="store_true", help="compare with the files, write none")
    check = parser.parse_args().check
    stale = []
    for split, rows in make().items():
        path = HERE / f"{split}.jsonl"
        if not check:
            path.write_bytes(render(rows))
        elif not path.exists() or path.read_bytes() != render(rows):
            stale.append(path.name)
    if stale:
        print(f"differs from what the generator makes: {', '.join(stale)}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
