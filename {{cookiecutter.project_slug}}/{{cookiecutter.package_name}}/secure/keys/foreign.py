"""What a key made elsewhere looks like: the output of a random generator.

A text passes where all of this holds. Everything else is refused.

1. Its 32 to 512 characters, padding aside, come from one alphabet that generators use: hexadecimal in one case,
   base32, letters and digits, Django's 50 characters, base64, base64url, or all of ASCII but the space. Two
   random UUIDs, joined, are hexadecimal.
2. It has no mark of something else: a reference, text that was never expanded, a message, a hash, a token of
   another system.
3. Its estimated entropy is that of a random text. Simple predictors of what people and programs write (words,
   repetition, sequences, keyboard walks, uneven characters, hexadecimal in a larger alphabet) guess each
   character from those before it. A guesser trusts each predictor as far as it has been right. It needs fewer
   bits than log2(size of the alphabet) for each character only where the text is not random. Refuse a text on
   which it saves MAX_SAVING bits, or saves them on what the text is in hexadecimal, base32 or base64.

The odds of a guesser against chance are a martingale, so at most one random text in 2**t lets it ever save t
bits (Ville's inequality). This bounds false refusals whatever the predictors are: 24 bits are one in 16 million.
Digits alone are refused too: one in three million random keys of 16 bytes in hexadecimal.

No rule can tell a key of 64 hexadecimal digits that was cut to 32..63 from a shorter key, or the hash of something
public from a random number.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from math import log2
from operator import mul
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits

MIN_LENGTH = 32
MAX_LENGTH = 512
MAX_SAVING = 24.0
PUT_KEY = "put the key itself there"

Predictor = Callable[[str, str], Iterator[float]]
"""Takes a text and its alphabet; gives, for each character, its probability times the size of the alphabet."""

Refusal = tuple[str, str | None]
"""Why a text is no key, and a hint; None where only another key helps."""

_HEX = digits + "abcdef"
_BASE32 = ascii_uppercase + "234567"
_ALNUM = ascii_uppercase + ascii_lowercase + digits  # in the order of base64
_DJANGO = digits + ascii_lowercase + "!@#$%^&*(-_=+)"
_BYTES = "".join(map(chr, range(256)))
_ALPHABETS = (  # the smallest first, each in the order of its codes
    *map("".join, map(sorted, (_HEX, _HEX.upper(), _BASE32, digits + ascii_lowercase, digits + ascii_uppercase))),
    *map("".join, map(sorted, (_DJANGO, _ALNUM, _ALNUM + "+/", _ALNUM + "-_"))),
    _BYTES[33:127],
)

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_TWO_UUIDS = re.compile(f"{_UUID4}[^0-9a-z]?{_UUID4}", re.IGNORECASE)

_MARKS: tuple[tuple[str, str | None, str], ...] = (
    (
        "is a reference that was not resolved",
        PUT_KEY,
        r"[a-z][a-z0-9+.-]*://|@[A-Z]\w{3,}\.\w{3,}\(|ENC[\[(].*[\])]$|\{[\w.-]+\}[\w+/=-]+$|!\w+ "
        r"|(?:arn|vault|bao|secrets?|kms|gsm|gcp|aws|awssm|ssm|azkv|enc|env|file|cipher|encrypted|aes|keyring|v\d)"
        r":[\w+/=:.#-]+$",
    ),
    (
        "is text that was not expanded",
        PUT_KEY,
        r"\$\w+$|[#$%]\{[\w .:/?#()'\"|@,+={}$-]+\}$|\$\(.*\s.*\)$|\$\([\w.]+\)$|`[\w ./-]+`$|\$\[[\w .:'()/-]+\]$"
        r"|%\w+%$|%\(\w+\)s|@@?\w+@@?$|__\w+__$|\{\{.*\}\}$|<%.*%>$|\{%.*%\}$|<[\w .:/-]+>$|\[[\w .:/-]+\]$",
    ),
    (
        "is a message or a document",
        PUT_KEY,
        r"\{[\"'].*[\"'\]}\del]\}$|\[[\"{].*[\"}]\]$|<([a-zA-Z]+)[^>]*>.*</\1>$|<(?i:!doctype|\?xml)|<\w+.*/>$"
        r"|b(['\"])[\w+/=-]*\2$|b['\"].*\\x[0-9a-f]{2}",
    ),
    (
        "belongs to another system",
        None,
        r"-----BEGIN|ssh-\w+\s|eyJ\w*?(?:Ijo[iwx]|iOi|I6I)|(?:\w+\.)?eyJ[\w-]+\.|gh[opsur]_\w{30}"
        r"|github_pat_|gl[a-z]{1,5}t-[\w-]{20}|gloas-|glsa_|glc_eyJ|xox[a-z]-|xapp-\d-"
        r"|[rs]k_(?:live|test|prod)_|whsec_|SG\.[\w-]{16,}\.|npm_\w{36}$|pypi-AgE|AGE-SECRET-KEY-"
        r"|age1[a-z0-9]{58}$|AIza[\w-]{35}$|ya29\.|GOCSPX-|sk-(?:proj|ant|admin|svcacct)-|sk-.{20}T3BlbkFJ"
        r"|hf_[A-Za-z]{34}$|api_org_|hv[sbr]\.\w|do[opr]_v1_|dp\.[a-z]{2,5}\.|dckr_[a-z]at_|sq0[a-z]{3}-"
        r"|EAA[\w-]{60}|shp[a-z]{2}_(?i:[0-9a-f]{32})|lin_api_|gsk_\w{52}$|NRAK-|PMAK-|HRKU-|ATATT3"
        r"|fo1_[\w-]{43}$|fm2_lJP|FlyV1|pplx-|pscale_|r8_\w{37}$|secret_\w{43}$|ntn_\d{11}"
        r"|\d{8,10}:[\w-]{35}$|\w{3}\dQ~[\w.~-]{31,34}$|SK(?i:[0-9a-f]{32})$|A3-[A-Z0-9]{6}-|p8e-\w{32}$"
        r"|AKCp\w{69}$|cmVmdGtu|CLOJARS_|duffel_|EZ[AT]K\w{54}$|FLW\w+_TEST-|fio-u-|ico-\w{32}$"
        r"|pat\.[\w-]{22}\.|\w{6}_\w{29}_mmk$|pnu_\w{36}$|rdme_|tk-us-|sntrys_|shippo_|sgp_[0-9a-f]{16}"
        r"|sha(?:256|384|512)[-:~]"
        r"|AQ(?:IC|EC)AH|AQAAANCMnd8|CiQA[\w+/=-]{90}|Ag[AB][\w+/]{250}|gAAAAAB|U2FsdGVkX1|H4sIA"
        r"|UEsDB|xprv\w{100}|AAAAB3NzaC1|AAAAC3NzaC1|MII\w[\w+/=-]{90}|MC4CAQAw|\w{14}\.atlasv1\.|\$ANSIBLE_VAULT"
        r"|AKIA[A-Z0-9]{16}|django-insecure-",
    ),
    (
        "is a password hash",
        None,
        r"\$(?:2[abxy]?|[1567y]|argon2\w*|scrypt|pbkdf2[\w-]*|apr1)\$[\w./$,=+-]+$|\{\w+\}[\w+/=]+$"
        r"|(?:pbkdf2|scrypt|argon2|bcrypt|sha\d+|md5)[\w:]*\$",
    ),
    ("is a UUID: a name, not a secret", None, rf"\W?{_UUID}\W?$"),
    ("has only digits", None, r"\d+$"),
)

_LETTER_PAIRS = (
    "45445566476544449543556987654498575763437693436688673779299933949848946939994939693993475498299673499987"
    "37972999369756399559489977664466686864438673347675674999459929959929949539996947882956299585499436499999"
    "29981999388678399694699989554445588664523695338699962996199959798659994649999627792987396567389654488959"
    "29952779388388389944489959259929993996683499385999993944373848778649994357996874547578686442659344566997"
    "29883999599398349374569949999999999995999999990999993675285939765548954557896749592946395587559842497978"
    "39892993399878499355597959565638595764337593336889961989299939999649958969996939993993299895379659899959"
    "492939993998997299739997894557566657746442983378596925672979296755479777486956"
)
"""For a letter (rows: first in a word, after a, ..., after z) -log2 of its probability, at most 9, in words of
English and fourteen other languages (Python's reference and Django's translations)."""

_DICTIONARY = frozenset(
    re.findall(
        r"\w+",
        "a abc access account add admin after again all alphanumeric always an and another any api app "
        "application are at auth aws azure backend bad bar base battery baz be before begin big bitte but by "
        "bytes cache cambiar can case change changeme changer character characters choose cipher class clave "
        "cle client cloud cluster code com company complex config configure cookie copy correct create "
        "credential credentials csrf customer data database deadbeef decrypt default define demo denied "
        "deploy deployment dev development different do docker does dog dont dummy each edit eight email "
        "empty encrypt encrypted ensure enter env environment error ever every example exception external "
        "failed fake fallback false file fill five flask foo for forbidden forget found four fox from "
        "frontend generate generated generator get git goes google hack hacker hard has hash have hello here "
        "hex hidden hmac home horse host http https id if in insecure insert int internal into invalid is it "
        "its itsdangerous job jumps just jwt keep key keyring keys know latest lazy least length less letter "
        "lib like line list local localhost long lower machine made magic make manager many master me mega "
        "message minimum missing modify more most much must my name need never new nine no nobody node none "
        "not now null number oauth of off ok on one only ops or order our over own pass passphrase password "
        "passwort paste path permission phrase pick placeholder please port private prod product production "
        "project provide provided proxy public put python queue quick qux random randomly rather read real "
        "really region remember replace request reset resource response rest root rotate rotation run safe "
        "salt salted same sample secret secreta secrets secure security sentence server service session set "
        "setting settings seven sha should sign signing site six some something specify staging staple start "
        "storage string strong such super supply sure system task team ten test testing text than that the "
        "their then there they this three time to todo token top true two type ultra undefined under "
        "unguessable unique unknown until up update upper urandom url use used user using usr uuid value var "
        "variable vault version versions very want was we web website welcome when will with word words "
        "worker world write www xyz yes you your yourself",
    )
)

_KEYBOARDS = (
    ("1234567890-=", "qwertyuiop[]", "asdfghjkl;'", "zxcvbnm,./"),
    ("1234567890-=", "azertyuiop[]", "qsdfghjklm'", "wxcvbn,;:!"),
    ("1234567890-=", "qwertzuiop[]", "asdfghjkl;'", "yxcvbnm,.-"),
)
_UNSHIFTED = str.maketrans('!@#$%^&*()_+{}:"<>?', "1234567890-=[];',./")
_LEET = str.maketrans("013457@$!", "oieastasi")


def refusal(text: str) -> Refusal | None:
    """Return why `text`, of MIN_LENGTH to MAX_LENGTH characters, is no random key; None where it looks like one."""
    for reason, hint, mark in _MARKS:
        if re.match(mark, text, re.DOTALL):
            return reason, hint
    return _unlike_random(text)


def _unlike_random(text: str) -> Refusal | None:
    if any(character.isspace() for character in text):
        return "has white space or a line break inside", "remove it: a key is one word on one line"
    core = re.sub("[^0-9a-zA-Z]" if _TWO_UUIDS.fullmatch(text) else "={1,6}$", "", text)
    alphabet = next((alphabet for alphabet in _ALPHABETS if set(core) <= set(alphabet)), None)
    if alphabet is None:
        return "has characters that no key generator uses", None
    if text.lower() in _hashes_of_nothing():
        return "is the hash of an empty text", None
    if saved_bits(core, alphabet) >= MAX_SAVING:
        return "does not look random: it has words, repetitions or other patterns", None
    if any(saved_bits(decoded, _BYTES) >= MAX_SAVING for decoded in _decoded(core)):
        return "does not look random: it is text in another encoding", None
    return None


def saved_bits(text: str, alphabet: str) -> float:
    """Return how many bits the guesser saves on `text`, or on its best beginning, against a uniform code."""
    rest = len(_PREDICTORS) - 1
    trust = [0.4, 0.25, *[0.35 / rest] * rest]  # at first: most in chance, then in words
    fresh = [share * 0.03 for share in trust]
    saved = best = 0.0
    for odds in zip(*(predictor(text, alphabet) for predictor in (_chance, *_PREDICTORS)), strict=True):
        worth = list(map(mul, trust, odds))
        total = sum(worth)
        saved += log2(total)
        best = max(best, saved)
        trust = [0.97 * share / total + again for share, again in zip(worth, fresh, strict=True)]
    return best


def _chance(text: str, _alphabet: str) -> Iterator[float]:
    return (1.0 for _ in text)


def _subset(characters: str) -> Predictor:
    """These characters alone."""

    def predictor(text: str, alphabet: str) -> Iterator[float]:
        inside = 0.96 * len(alphabet) / len(set(alphabet) & set(characters))
        return (inside * (character in characters) + 0.04 for character in text)

    return predictor


def _kinds(text: str, alphabet: str) -> Iterator[float]:
    """Lower case, upper case, digits and the rest, as often as so far."""
    share = {kind: alphabet_kinds / len(alphabet) for kind, alphabet_kinds in _counts(alphabet).items()}
    seen = dict.fromkeys(share, 0)
    for length, kind in enumerate(map(_kind, text)):
        yield (seen[kind] / share[kind] + 2) / (length + 2)
        seen[kind] += 1


@cache
def _counts(alphabet: str) -> dict[str, int]:
    kinds = [_kind(character) for character in alphabet]
    return {kind: kinds.count(kind) for kind in kinds}


def _kind(character: str) -> str:
    if not " " < character < "\x7f":
        return "other"
    return "a" if character.islower() else "A" if character.isupper() else "0" if character.isdigit() else "-"


def _characters(text: str, alphabet: str) -> Iterator[float]:
    """Each character as often as so far."""
    seen = dict.fromkeys(text, 0)
    for length, character in enumerate(text):
        yield (seen[character] * len(alphabet) + 12) / (length + 12)
        seen[character] += 1


def _repetition(text: str, alphabet: str) -> Iterator[float]:
    """What followed the same two characters before."""
    followed: dict[str, str] = {}
    for at, character in enumerate(text):
        context = text[max(0, at - 2) : at]
        again = 0.9 * len(alphabet) * (followed.get(context) == character)
        yield again + 0.1 if context in followed else 1.0
        followed[context] = character


def _sequence(stride: int) -> Predictor:
    """The same step again between the characters `stride` apart, or one step up or down."""

    def predictor(text: str, alphabet: str) -> Iterator[float]:
        codes, size = [alphabet.index(character) for character in text], len(alphabet)
        for at, code in enumerate(codes):
            if at < 2 * stride:
                yield 1.0
                continue
            before, earlier = codes[at - stride], codes[at - 2 * stride]
            step = (code - before) % size
            again = 0.7 * (step == (before - earlier) % size)
            yield (again + 0.15 * (step == 1) + 0.05 * (step == size - 1)) * size + 0.1

    return predictor


def _keyboard(rows: tuple[str, ...]) -> Predictor:
    """A key near the last one: by the last step again, by the step that followed the last two before, or by any."""
    places = {key: complex(x, y) for y, row in enumerate(rows) for x, key in enumerate(row)}

    def predictor(text: str, alphabet: str) -> Iterator[float]:
        written = Counter(alphabet.lower().translate(_UNSHIFTED))
        keys = text.lower().translate(_UNSHIFTED)
        steps: list[complex | None] = [None]
        followed: dict[tuple[complex | None, ...], complex] = {}
        for at, key in enumerate(keys):
            here, before = places.get(key), places.get(keys[at - 1]) if at else None
            if here is None or before is None:
                yield 0.1 if at else 1.0
                steps.append(None)
                continue
            step, context = here - before, tuple(steps[-2:])
            near = abs(step.real) <= 1 and abs(step.imag) <= 1
            chance = 0.35 * (step == steps[-1]) + 0.3 * (step == followed.get(context)) + 0.25 / 9 * near
            yield chance * len(alphabet) / written[key] + 0.1
            followed[context] = step
            steps.append(step)

    return predictor


def _letters(text: str, alphabet: str, leet: float) -> Iterator[tuple[str, float, float]]:
    """For each character: the letter it means, if any, how likely it is written so, and how likely as a sign.

    `leet` is the share of letters that are written in an unusual way: as a digit, as a sign, or in the other case.
    """
    signs = len(set(alphabet) - set(ascii_letters)) or 1
    cases, separator = "", ""
    for character in text:
        sign = 0.3 / signs + (0.7 if character == separator else 0)
        if character in ascii_letters:
            case = "a" if character.islower() else "A"
            expected = "a" if cases.endswith("a") or cases in ("A", "aA") else "A"  # lower, Camel or UPPER
            likely = 1 - leet if case == expected else leet
            yield character.lower(), (1 - leet) * (likely if cases else 0.5), 0.0
            cases = (cases + case)[-2:]
        elif (letter := character.translate(_LEET)) in ascii_letters:
            yield letter, leet / 2, sign
        else:
            yield "", 0.0, sign
            separator = character


def _pairs(leet: float) -> Predictor:
    """Words of any European language, letter by letter."""

    def predictor(text: str, alphabet: str) -> Iterator[float]:
        rows, before = _letter_pairs(), " "
        for letter, written, sign in _letters(text, alphabet, leet):
            chance = 0.86 * rows[before][letter] * written if letter else 0.0
            yield (chance + 0.14 * sign) * len(alphabet)
            before = letter or " "

    return predictor


def _words(leet: float) -> Predictor:
    """Words of the dictionary, one after the other or with signs between: each beginning of one has its share."""

    def predictor(text: str, alphabet: str) -> Iterator[float]:
        beginnings, share = _beginnings(), {"": 1.0}
        for letter, written, sign in _letters(text, alphabet, leet):
            following: dict[str, float] = {}
            outside = share.pop("", 0.0)
            for beginning, weight in share.items():
                longer = beginning + letter
                if letter and longer in beginnings:
                    following[longer] = weight * beginnings[longer] / beginnings[beginning] * 0.9 * written
                outside += weight * ((beginning in _DICTIONARY) / beginnings[beginning])
            if letter and letter in beginnings:
                first = outside * 0.7 * beginnings[letter] / beginnings[""] * 0.9 * written
                following[letter] = following.get(letter, 0.0) + first
            following[""] = 0.1 / len(alphabet) + outside * 0.3 * 0.9 * sign
            total = sum(following.values())
            yield total * len(alphabet)
            share = {beginning: weight / total for beginning, weight in following.items()}

    return predictor


@cache
def _beginnings() -> Counter[str]:
    """How many words of the dictionary have each beginning."""
    return Counter(word[:end] for word in _DICTIONARY for end in range(len(word) + 1))


@cache
def _letter_pairs() -> dict[str, dict[str, float]]:
    rows = {}
    for number, letter in enumerate(" " + ascii_lowercase):
        weights = [2.0 ** -int(digit) for digit in _LETTER_PAIRS[26 * number : 26 * (number + 1)]]
        rows[letter] = {after: weight / sum(weights) for after, weight in zip(ascii_lowercase, weights, strict=True)}
    return rows


_PREDICTORS: tuple[Predictor, ...] = (
    *(_pairs(0.02), _pairs(0.2), _words(0.1), _subset(_HEX), _subset(_BYTES[32:127])),
    *(_kinds, _characters, _repetition, *map(_sequence, (1, 2, 3, 4)), *map(_keyboard, _KEYBOARDS)),
)


def _decoded(text: str) -> Iterator[str]:
    """What `text`, or a long run in it, is in hexadecimal, base32 or base64, cut anywhere, where it may be text."""
    for alphabet, bits, source in (
        (_HEX, 4, text.lower()),
        (_BASE32, 5, text),
        (_ALNUM + "+/", 6, text.replace("-", "+").replace("_", "/")),
    ):
        for run in re.findall(f"[{alphabet}]{{16,}}", source):
            stream = "".join(f"{alphabet.index(character):0{bits}b}" for character in run)
            for start in range(0, 8, 4 if bits == 4 else 2 if bits == 6 else 1):
                octets = [chr(int(stream[at : at + 8], 2)) for at in range(start, len(stream) - 7, 8)]
                if 4 * sum(" " <= octet <= "~" for octet in octets) >= 3 * len(octets):
                    yield "".join(octets)
        if set(source) <= set(alphabet):
            return


@cache
def _hashes_of_nothing() -> set[str]:
    names = ("md5", "sha1", "sha256", "sha384", "sha512")
    made = [hashlib.new(name, text, usedforsecurity=False) for name in names for text in (b"", b"\n")]
    return {digest.hexdigest() for digest in made}
