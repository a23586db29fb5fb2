"""The words that drawn sentences are made of. Of open classes every other one goes to either half of a search.

Of verbs the past stands first, then the participle of those that take an object, and the plain form last.
"""

from __future__ import annotations

__all__ = ["WORDS"]

WORDS: dict[str, tuple[str, ...]] = {
    name: tuple(" ".join(one.split()) for one in (text.split("|") if "|" in text else text.split()))
    for name, text in {
        "person": """gardener teacher baker pilot nurse farmer singer lawyer clerk painter student driver judge sailor
            doctor waiter artist guard poet mayor plumber tailor cook hunter miner captain editor dancer mechanic
            librarian shepherd jeweller cousin neighbour uncle stranger visitor actor carpenter engineer""",
        "thing": """boat fence letter lamp basket engine table jacket mirror ladder bottle blanket bicycle clock hammer
            piano statue kettle curtain wagon parcel drawer bucket candle cabinet window carpet bell trumpet saddle
            notebook painting suitcase telescope umbrella vase ribbon helmet pillow shovel""",
        "place": """bridge garden station market harbour kitchen museum forest castle library stable river school
            village chapel tower valley factory orchard theatre meadow cellar office island""",
        "name": """Clara Victor Nina Oscar Edith Hugo Maria Felix Judith Simon Paula Martin Alice Henry Lucy Walter
            Rosa Peter Helen Arthur""",
        "person_adjective": """old young tall tired clever quiet angry brave gentle proud lazy polite nervous cheerful
            patient honest shy famous""",
        "thing_adjective": """small red heavy broken wooden green dusty golden cheap narrow blue round ancient silver
            empty yellow enormous plain rusty white black soft square fragile""",
        "kind_of_thing": "toy oak winter brass travel steel party family summer copper leather dinner",
        "place_adjective": "busy dark northern distant crowded lovely flooded sunny hidden deserted noisy remote",
        "adverb": """quietly slowly often carefully suddenly rarely gladly secretly quickly usually calmly proudly
            finally barely gently nervously""",
        "adverb_of_time": "yesterday later today tonight afterwards meanwhile sometimes eventually",
        "intransitive": """slept sleep|laughed laugh|waited wait|arrived arrive|sang sing|worked work|smiled smile|
            danced dance|vanished vanish|stumbled stumble|rested rest|whispered whisper|shouted shout|paused pause""",
        "transitive": """painted painted paint|repaired repaired repair|carried carried carry|sold sold sell|
            dropped dropped drop|opened opened open|cleaned cleaned clean|hid hidden hide|bought bought buy|
            moved moved move|found found find|lifted lifted lift|borrowed borrowed borrow|stole stolen steal|
            examined examined examine|packed packed pack|polished polished polish|broke broken break|
            ordered ordered order|covered covered cover|measured measured measure|lost lost lose""",
        "toward_person": """helped helped help|followed followed follow|thanked thanked thank|visited visited visit|
            praised praised praise|ignored ignored ignore|invited invited invite|watched watched watch|
            blamed blamed blame|greeted greeted greet|admired admired admire|warned warned warn""",
        "giving": "gave|sent|showed|offered|lent|handed",
        "saying": "said|thought|believed|noticed|claimed|remembered",
        "wanting": "wanted|hoped|tried|planned|refused|decided",
        "standing": "stood|lay|hung|appeared",
        "feeling": "happy|ready|late|absent|afraid|calm|silent|hungry",
        "preposition": "near|behind|beside|under|above|from|opposite|inside",
        "conjunction": "because|when|although|while|before|after",
        "modal": "will|could|should|might|must|would",
        "numeral": "two|three|four|five|seven|twelve",
        "possessive": "his|her|their|our|my",
        "degree": "very|rather|quite|extremely",
    }.items()
}
