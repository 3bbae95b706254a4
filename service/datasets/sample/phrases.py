"""The phrases of the bundled sample dataset: pools of frames and of fillers for their slots.

A pool is a string whose items are separated by slashes, read by `generate.pool`. Order matters:
the last third of every pool is reserved for the test split.
"""

# Fillers of the slots `who`, `adj` and `event` by a row's group, for all splits.
GROUPS: dict[str, dict[str, str]] = {
    "lgbtq": {
        "who": """
            gay people / lesbian couples / trans people / gay couples / queer people / gay men /
            bisexual people / lesbians / trans women
        """,
        "adj": "gay / lesbian / trans / queer / bisexual",
        "event": "the Pride parade / the drag show / the rainbow choir evening / the Pride picnic",
    },
    "mexican": {
        "who": """
            Mexicans / Mexican families / Mexican workers / Mexican immigrants / people from Mexico
            / Mexican couples / Mexican men / Mexican women
        """,
        "adj": "Mexican / Mexican-born / Mexican American",
        "event": """
            the Mexican street fair / the mariachi night / the Day of the Dead market / the taco
            festival
        """,
    },
    "middle_east": {
        "who": """
            Arabs / Syrians / Arab families / Iraqi refugees / people from the Middle East /
            Lebanese families / Syrian refugees / Iranians / Arab men / Arab women
        """,
        "adj": "Arab / Syrian / Iraqi / Lebanese / Iranian",
        "event": """
            the Arab film week / the Lebanese food fair / the Syrian choir evening / the Persian new
            year party
        """,
    },
}

FILLERS: dict[str, str] = {
    "place": """
        the market / the library / our school / the football club / the swimming pool / the church
        hall / the campus / the park / the office / the gym / the clinic / our youth club / the town
        hall / the cinema / the playground / the bakery / the community garden / the bus station /
        the tennis club / the shopping centre / the beach / the train station
    """,
    "those": """
        those people / these people / people like that / folk like them / such people / their kind
    """,
    "someone": """
        a man on the bus / my uncle / a caller on the radio / a customer / my old coach / a
        neighbour / someone at work / our landlord / a guy online / a parent at the meeting / our
        plumber / a man in the queue
    """,
    "bad": """
        are ruining {place} / do not belong in {place} / should be kept out of {place} / are all
        liars / bring nothing but trouble to {place} / cannot be trusted / should be banned from
        {place} / are dirty and rude / should not be allowed near our children / are a danger to our
        families / should be thrown out of {place} / are lazy and dishonest / are not like decent
        people / make {place} unsafe / should all be sent away / are not welcome in {place} / do not
        deserve our help / are the worst thing to happen to {place} / are criminals, all of them /
        have no place in this country / should be driven out of {place} / are dishonest and
        dangerous / should not be allowed to rent here / are nothing but trouble / do not deserve
        the same rights as us / are ruining this country / should never be served in {place} / are
        not fit to raise children / are a dirty, useless bunch / should go away and never come back
    """,
    "good": """
        should be allowed to rent here / belong in {place} as much as anyone / make {place} better /
        can be trusted with the keys / are great with our children / work hard at {place} / bring a
        lot of life to {place} / have done so much for {place} / are kind and funny / keep {place}
        clean / are good neighbours / are not so different from us / helped us rebuild {place} / are
        welcome in {place} / always stop to help / deserve the same rights as us / are honest people
        / should be proud of what they built at {place} / run {place} really well
    """,
    "do": """
        are moving in near {place} / meet every week at {place} / will open a shop next to {place} /
        were interviewed at {place} / share a table at {place} / pay the same rent near {place} /
        have asked for a room at {place} / took part in a survey at {place} / wait for the early bus
        at {place} / are listed in the new guide to {place} / play cards at {place} / have a stall
        at {place}
    """,
    "reject": """
        I told him he was wrong / that is simply not true / nobody should talk like that / I said
        they are my friends and left / we asked him to stop / what a cruel thing to say / it made me
        angry and I spoke up / I do not accept that kind of talk / I reported it / that is unfair
        and I said so / we should stand up to such talk / he is wrong and I will keep saying so
    """,
    "agree": """
        he is right / I could not agree more / finally someone says it / it is true / I have said so
        for years / good for him / so do I, and I am not sorry / exactly my view / and he has a
        point
    """,
    "thing": """
        ticket machine / heating / coffee / parking app / printer / new website / bus / lift /
        sandwich / wifi / referee / phone company
    """,
    "rant": """
        is useless and should be thrown out / makes me furious / is the worst I have ever seen / is
        a disgrace / ruins my whole week / is dirty and broken again / cannot be trusted / is total
        rubbish, ban it / is stupid and should be kept out of {place}
    """,
    "job": "nurse / teacher / bus driver / engineer / cook / student / barber / dentist / farmer",
}

# Frames by label and finer label.
FRAMES: dict[str, dict[str, str]] = {
    "hate": {
        "hostile_direct": """
            {who} {bad}. / I will say it: {who} {bad}. / {who} {bad}, and they {bad}. / let us be
            honest, {who} {bad}. / I am sick of {who}, they {bad}. / why does nobody admit that
            {who} {bad}? / my view on {who}? They {bad}. / every day I see it at {place}: {who}
            {bad}. / we all know {who} {bad}. / if you ask me, {who} {bad}, simple as that. /
            nothing personal, but {who} {bad}. / the council will not listen, but {who} {bad}.
        """,
        "hostile_implicit": """
            the less I see of {who} at {place}, the better. / I used to love {place}, then {who}
            moved in and I left in disgust. / I would never hire {who}, and nobody with sense would.
            / when {who} come to {place}, I hold on to my wallet. / I took my kids out of {place}
            because of {who}. / no wonder {place} is a mess, look how many {who} are there. / I
            would rather close {place} than open it to {who}. / once {who} show up at {place},
            decent folk stay away. / keep {who} where I do not have to look at them. / if {who} win
            this vote, we can say goodbye to {place}. / I wash my hands twice when {who} have been
            at {place}. / never turn your back on {who}, at {place} or anywhere. / I would not let
            my son bring {who} home.
        """,
        "hostile_no_group_word": """
            {those} {bad}. / we do not want {those} in {place}, they {bad}. / I saw {those} again at
            {place}. They {bad}. / you know who I mean: {those} {bad}. / not one of them should live
            near {place}, {those} {bad}. / send them all back, {those} {bad}. / who let {those} into
            {place}? They {bad}. / they are back at {place}, and {those} {bad}.
        """,
        "hostile_quoted": """
            {someone} said {who} {bad}, and {agree}. / {someone} told me {who} {bad}. {agree}. /
            {someone} wants us to believe {who} {good}. What a lie, they {bad}. / the paper claims
            {who} {good}. No, they {bad}. / read today that {who} {bad}: {agree}.
        """,
    },
    "normal": {
        "counter_speech": """
            {someone} said {who} {bad}. {reject}. / {someone} told me {those} {bad}. {reject}. /
            when {someone} claimed {who} {bad}, the room went quiet. {reject}. / it hurts to hear
            that {who} {bad}. They {good}. / stop saying {who} {bad}, they {good}. / anyone who
            thinks {who} {bad} has never met them. / posters at {place} said {who} {bad}. We took
            them down. {reject}. / it is a lie that {who} {bad}. / heard again that {those} {bad}.
            {reject}.
        """,
        "neutral_mention": """
            {who} {do}. / I read that {who} {do}. / some {who} {do}, others do not. / my cousin
            works with {who} who {do}. / do you know whether {who} {do}? / according to the list,
            {who} {do}. / there is a talk about {who} at {place} tonight.
        """,
        "positive": """
            {who} {good}. / I am glad that {who} {good}. / my {adj} {job} friend and his family
            {good}. / if you ask me, {who} {good}. / every day I see it at {place}: {who} {good}. /
            {event} was lovely, {who} {good}. / we all know {who} {good}. / proud to say that {who}
            {good}.
        """,
        "news": """
            police are looking for whoever attacked {adj} shoppers near {place}. / {who} were turned
            away from {place}, a court heard on Monday. / a {job} who insulted {who} at {place} has
            been fined. / {event} was called off because of the storm. / a report found that {who}
            near {place} pay more rent than others. / the mayor opened {event} at {place}.
        """,
        "everyday": """
            {those} next door left soup for us, they {good}. / a {adj} {job} fixed my bike behind
            {place}. / my {adj} neighbour and I missed the bus to {place} again. / we had lunch with
            {those} from {place} and they {good}. / are you coming to {event} with us? / my {adj}
            boss is off sick, so I will open {place} tomorrow.
        """,
        "complaint_not_at_group": """
            the {thing} at {place} {rant}. / I am sick of it, the {thing} {rant}. / the {thing}
            {rant}, even my {adj} {job} friend says so. / {event} was fun but the {thing} {rant}. /
            honestly, this {thing} {rant}, send it back. / went to {event} with friends, and the
            {thing} {rant}.
        """,
    },
}
