"""Pairs of related words by their relation, and the frames in which the second naturally follows the first.

No word is the first of two pairs. The second is a class's answer and may come again: categories, places.
"""

from __future__ import annotations

__all__ = ["FRAMES", "PAIRS"]

# fmt: off
PAIRS: dict[str, tuple[tuple[str, str], ...]] = {
    "antonym": (
        ("hot", "cold"), ("tall", "short"), ("rich", "poor"), ("young", "old"), ("early", "late"), ("hard", "soft"),
        ("dark", "light"), ("fast", "slow"), ("full", "empty"), ("wet", "dry"), ("clean", "dirty"),
        ("strong", "weak"), ("happy", "sad"), ("open", "closed"), ("up", "down"), ("left", "right"), ("high", "low"),
        ("near", "far"), ("thick", "thin"), ("wide", "narrow"), ("deep", "shallow"), ("loud", "quiet"),
        ("true", "false"), ("good", "bad"), ("alive", "dead"), ("sweet", "bitter"), ("rough", "smooth"),
        ("inside", "outside"), ("first", "last"), ("north", "south"), ("east", "west"), ("day", "night"),
        ("war", "peace"), ("love", "hate"), ("friend", "enemy"), ("win", "lose"), ("buy", "sell"), ("push", "pull"),
        ("remember", "forget"), ("accept", "reject"), ("cheap", "expensive"), ("success", "failure"),
        ("summer", "winter"), ("male", "female"), ("positive", "negative"), ("internal", "external"),
        ("major", "minor"), ("ancient", "modern"), ("public", "private"), ("simple", "complex"),
        ("temporary", "permanent"), ("victory", "defeat"), ("guilty", "innocent"), ("rise", "fall"),
        ("front", "back"), ("top", "bottom"), ("heaven", "hell"), ("black", "white"), ("big", "small"),
        ("maximum", "minimum"), ("increase", "decrease"), ("active", "passive"),
    ),
    "young": (
        ("cow", "calf"), ("dog", "puppy"), ("cat", "kitten"), ("sheep", "lamb"), ("hen", "chick"), ("lion", "cub"),
        ("deer", "fawn"), ("goat", "kid"), ("pig", "piglet"), ("frog", "tadpole"), ("duck", "duckling"),
        ("goose", "gosling"), ("kangaroo", "joey"), ("owl", "owlet"), ("swan", "cygnet"), ("mare", "foal"),
        ("woman", "baby"), ("butterfly", "caterpillar"), ("tree", "seedling"), ("oak", "acorn"),
        ("fox", "cub"), ("leopard", "cub"), ("seal", "pup"), ("eagle", "chick"), ("buffalo", "calf"),
        ("parent", "child"),
    ),
    "home": (
        ("bird", "nest"), ("bee", "hive"), ("spider", "web"), ("bear", "cave"), ("fish", "river"), ("horse", "stable"),
        ("rabbit", "hole"), ("snail", "shell"), ("monk", "monastery"), ("king", "palace"), ("prisoner", "prison"),
        ("camel", "desert"), ("monkey", "jungle"), ("farmer", "farm"), ("sailor", "ship"), ("knight", "castle"),
        ("whale", "ocean"), ("wolf", "forest"), ("shark", "sea"), ("patient", "hospital"), ("ant", "hill"),
        ("soldier", "camp"), ("chicken", "coop"), ("refugee", "tent"),
    ),
    "use": (
        ("knife", "cut"), ("pen", "write"), ("bed", "sleep"), ("chair", "sit"), ("oven", "bake"), ("gun", "shoot"),
        ("phone", "call"), ("truck", "drive"), ("bike", "ride"), ("ladder", "climb"), ("shovel", "dig"),
        ("broom", "sweep"), ("spoon", "eat"), ("cup", "drink"), ("piano", "play"), ("soap", "wash"),
        ("needle", "sew"), ("brush", "paint"), ("axe", "chop"), ("eye", "see"), ("ear", "hear"), ("nose", "smell"),
        ("rope", "tie"), ("newspaper", "read"), ("stove", "cook"), ("pool", "swim"), ("scale", "weigh"),
        ("candle", "burn"), ("money", "pay"), ("camera", "photograph"),
    ),
    "part": (
        ("finger", "hand"), ("toe", "foot"), ("leaf", "plant"), ("petal", "flower"), ("page", "book"),
        ("wheel", "car"), ("wing", "plane"), ("roof", "house"), ("keyboard", "computer"), ("string", "guitar"),
        ("pedal", "bicycle"), ("screen", "television"), ("lens", "microscope"), ("tooth", "mouth"), ("brick", "wall"),
        ("letter", "word"), ("sentence", "paragraph"), ("chapter", "novel"), ("verse", "poem"), ("scene", "movie"),
        ("player", "team"), ("star", "galaxy"), ("minute", "hour"), ("month", "year"), ("drawer", "desk"),
        ("sleeve", "shirt"), ("heel", "shoe"), ("seed", "fruit"), ("bone", "skeleton"), ("muscle", "body"),
        ("link", "chain"), ("stair", "staircase"), ("engine", "machine"), ("branch", "trunk"),
        ("musician", "orchestra"),
    ),
    "category": (
        ("apple", "fruit"), ("banana", "fruit"), ("grape", "fruit"), ("pear", "fruit"), ("gold", "metal"),
        ("iron", "metal"), ("copper", "metal"), ("silver", "metal"), ("violin", "instrument"), ("flute", "instrument"),
        ("trumpet", "instrument"), ("drum", "instrument"), ("tennis", "sport"), ("hockey", "sport"),
        ("football", "sport"), ("tiger", "animal"), ("elephant", "animal"), ("zebra", "animal"),
        ("carrot", "vegetable"), ("onion", "vegetable"), ("potato", "vegetable"), ("mosquito", "insect"),
        ("beetle", "insect"), ("sword", "weapon"), ("spear", "weapon"), ("rifle", "weapon"), ("Mars", "planet"),
        ("Venus", "planet"), ("Jupiter", "planet"), ("coffee", "drink"), ("tea", "drink"), ("beer", "drink"),
        ("red", "color"), ("green", "color"), ("purple", "color"), ("cancer", "disease"), ("malaria", "disease"),
        ("bus", "vehicle"), ("taxi", "vehicle"), ("oxygen", "gas"), ("hydrogen", "gas"), ("sofa", "furniture"),
        ("table", "furniture"), ("hammer", "tool"), ("saw", "tool"),
    ),
    "workplace": (
        ("teacher", "school"), ("doctor", "hospital"), ("judge", "court"), ("chef", "kitchen"), ("actor", "theater"),
        ("priest", "church"), ("librarian", "library"), ("baker", "bakery"), ("scientist", "laboratory"),
        ("miner", "mine"), ("banker", "bank"), ("gardener", "garden"), ("professor", "university"),
        ("mechanic", "garage"), ("waiter", "restaurant"), ("cashier", "store"), ("astronaut", "space"),
        ("secretary", "office"), ("worker", "factory"), ("pilot", "airport"), ("barber", "shop"), ("artist", "studio"),
        ("curator", "museum"), ("conductor", "train"),
    ),
}
# fmt: on
# {C} is the first word of a pair, {R} the second, with which a prompt ends.
FRAMES: dict[str, tuple[str, ...]] = {
    "antonym": (
        "The opposite of {C} is {R}",
        "It is not {C} at all, but just the reverse, which is {R}",
        "The contrary of the word {C} is the word {R}",
        "Those who do not say {C} say the exact opposite, namely {R}",
    ),
    "young": (
        "The young of the {C} is called the {R}",
        "In the meadow we saw the {C} with her newborn {R}",
        "Before it became the {C} that we know it was a little {R}",
        "What will be the {C} one day is now only a {R}",
    ),
    "home": (
        "When evening came, the {C} went back to its {R}",
        "The place where the {C} lives is the {R}",
        "The home of the {C} is the {R}",
        "You will find the {C} in its {R}",
    ),
    "use": (
        "The {C} is something that people use to {R}",
        "With the {C} in front of us we began to {R}",
        "What is the {C} for? It is there to {R}",
        "She asked for the {C} because she wanted to {R}",
    ),
    "part": (
        "The {C} is a part of the {R}",
        "Without the {C} there would not be any {R}",
        "The {C} always belongs to the {R}",
        "He looked at the {C} first and then at the whole {R}",
    ),
    "category": (
        "Everyone knows that {C} is a kind of {R}",
        "It was about {C} and about every other {R}",
        "They asked about {C}, which is a type of {R}",
        "We have {C} here, and also another {R}",
    ),
    "workplace": (
        "The {C} spent the whole day in the {R}",
        "Early every morning the {C} drives to the {R}",
        "You can meet the {C} in the {R}",
        "Because the {C} had so much to do, it was late when he left the {R}",
    ),
}
