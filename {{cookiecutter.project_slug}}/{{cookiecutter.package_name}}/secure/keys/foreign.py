"""What a key made elsewhere looks like: the output of a random generator. Everything else is refused.

1. Its 32 to 512 characters, padding aside, come from one alphabet of a generator (`_ALPHABETS`). Two random UUIDs,
   joined, are hexadecimal.
2. It has no mark of something else: a reference, text that was never expanded, a message, a hash, a foreign token.
3. Its estimated entropy is that of a random text. Simple predictors of what people and programs write guess each
   character from those before it. A guesser trusts each predictor as far as it has been right. It needs fewer bits than
   log2(size of the alphabet) for each character only where the text is not random. Refuse a text on which it saves
   MAX_SAVING bits, or saves them on what the text is in hexadecimal, base32 or base64.

The odds of a guesser against chance are a martingale, so at most one random text in 2**t lets it ever save t bits
(Ville's inequality). This bounds false refusals whatever the predictors are: 27 bits are one in 134 million. Digits
alone are refused too: one in three million random keys of 16 bytes in hexadecimal. The marks refuse one in a million
random keys that have all signs of ASCII.

No rule can tell a key of 64 hexadecimal digits that was cut to 32..63 from a shorter key, or the hash of something
public from a random number.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import cache, partial
from math import gcd, log2
from operator import mul
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits

MIN_LENGTH = 32
MAX_LENGTH = 512
MAX_SAVING = 27.0
PUT_KEY = "put the key itself there"

Predictor = Callable[[str, str], Iterator[float]]
"""Takes a text and its alphabet; gives, for each character, its probability times the size of the alphabet."""

_HEX = digits + "abcdef"
_BASE32 = ascii_uppercase + "234567"
_ALNUM = ascii_uppercase + ascii_lowercase + digits  # in the order of base64
_DJANGO = digits + ascii_lowercase + "!@#$%^&*(-_=+)"
_BYTES = "".join(map(chr, range(256)))
_ALPHABETS = (  # the smallest first
    *(_HEX, _HEX.upper(), _BASE32, digits + ascii_lowercase, digits + ascii_uppercase),
    *(_DJANGO, _ALNUM, _ALNUM + "+/", _ALNUM + "-_", _BYTES[33:127]),
)

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_TWO_UUIDS = f"(?i){_UUID4}[^0-9a-z]?{_UUID4}"

_WRONG_TEXT = {
    "is a reference that was not resolved": r"""
[a-z][a-z0-9+.-]+://[\w$@:{/.-] @[A-Z]\w{3,}\.\w{3,}\( ENC[\[(].*[\])]$ !\w+\x20
\{(?:[A-Z]?[a-z]{2,}|[A-Z]{3,})(?:[\d._-][a-z]*)*\}[\w+/=-]+$
(?:arn|vault|bao|secrets?|kms|gsm|gcp|aws|awssm|ssm|azkv|enc|env|file|cipher|encrypted|aes|keyring|v\d):[\w+/=:.#-]+$
""",
    "is text that was not expanded": r"""
\$\w+$ [#$%]\{[\w\x20.:/?#()'"|@,+={}$-]+\}$ \$\(.*\s.*\)$ \$\([\w.]+\)$ `[\w\x20./-]+`$ \$\[[\w\x20.:'()/-]+\]$ %\w+%$
%\(\w+\)s$ @@?\w+@@?$ __\w+__$ \{\{.*\}\}$ <%.*%>$ \{%.*%\}$ <[\w\x20.:/-]+>$ \[[\w\x20.:/-]+\]$""",
    "is a message or a document": r"""
\{["'][\w\x20.@/-]+["']\s*:.*["'\]}\del]\}$ \[["{].*["}]\]$ <([a-zA-Z]+)[^>]*>.*</\1>$ <(?i:!doctype|\?xml)
<[\w:.-]+(?:\s.*)?/>$ b(['"])[\w+/=-]*\2$ b['"].*\\x[0-9a-f]{2}""",
}
"""Patterns, separated by white space, of what is there instead of a key by mistake."""

_OTHER_SECRET = {
    "belongs to another system": r"""
-----BEGIN ssh-\w+\s eyJ\w*?(?:Ijo[iwx]|iOi|I6I) (?:\w+\.)?eyJ[\w-]+\. gh[opsur]_\w{30} github_pat_
gl[a-z]{1,5}t-[\w-]{20} gloas- glsa_ glc_eyJ xox[a-z]- xapp-\d- [rs]k_(?:live|test|prod)_ whsec_ SG\.[\w-]{16,}\.
npm_\w{36}$ pypi-AgE AGE-SECRET-KEY- age1[a-z0-9]{58}$ AIza[\w-]{35}$ ya29\. GOCSPX- sk-(?:proj|ant|admin|svcacct)-
sk-.{20}T3BlbkFJ hf_[A-Za-z]{34}$ api_org_ hv[sbr]\.\w do[opr]_v1_ dp\.[a-z]{2,5}\. dckr_[a-z]at_ sq0[a-z]{3}-
EAA(?=[^a-z]*[a-z])[\w-]{60} shp[a-z]{2}_(?i:[0-9a-f]{32}) lin_api_ gsk_\w{52}$ NRAK- PMAK- HRKU- ATATT3 fm2_lJP
fo1_[\w-]{43}$ FlyV1 pplx- pscale_ r8_\w{37}$ secret_\w{43}$ ntn_\d{11} \d{8,10}:[\w-]{35}$ \w{3}\dQ~[\w.~-]{31,34}$
SK(?i:[0-9a-f]{32})$ A3-[A-Z0-9]{6}- p8e-\w{32}$ AKCp\w{69}$ cmVmdGtu CLOJARS_ duffel_ EZ[AT]K\w{54}$ FLW\w+_TEST-
fio-u- ico-\w{32}$ pat\.[\w-]{22}\. \w{6}_\w{29}_mmk$ pnu_\w{36}$ rdme_ tk-us- sntrys_ shippo_ sgp_[0-9a-f]{16}
sha(?:256|384|512)[-:~] AQ(?:IC|EC)AH AQAAANCMnd8 CiQA[\w+/=-]{90} Ag[AB][\w+/]{250} gAAAAAB U2FsdGVkX1 H4sIA UEsDB
xprv\w{100} AAAAB3NzaC1 AAAAC3NzaC1 ssh-\w+AAAA IQoJb3JpZ2lu FwoGZXIvYXdz EJ\[1: SHA256:[\w+/]{43}$ MIIEpAIBAAK
MIIBIjANBg MCowBQYDK2V MFkwEwYHK pk_(?:live|test)_ v[1-4]\.(?:local|public)\. sb_(?:secret|publishable)_
vercel_blob_rw_ tskey-
MII(?=[^a-z]*[a-z])\w(?:[\w+/=-]{90}|[\w+/](?:[DTjz](?:C[BC]|AN)|[AQgw]IBA)) MHcCAQEE MIGHAgEA MI(?:Gk|Hc)AgEBB
M[A-Z].{2,12}(?:BgcqhkjOPQI|YHKoZIzj0C|ByqGSM49Ag)
MC4CAQAw \w{14}\.atlasv1\. \$ANSIBLE_VAULT AKIA[A-Z0-9]{16} django-insecure-""",
    "is a password hash": r"""
\$(?:2[abxy]?|[1567y]|argon2\w*|scrypt|pbkdf2[\w-]*|apr1)\$[\w./$,=+-]+$
(?:pbkdf2|scrypt|argon2|bcrypt|sha\d+|md5)[\w:]*\$""",
    "is the hash of an empty text": r"""
(?i:(?:d41d8cd9|da39a3ee|e3b0c442|38b060a7|cf83e135|68b329da|adc83b19|01ba4719|ec664e88|be688838)[0-9a-f]+$)""",
    "is a UUID: a name, not a secret": rf"(?i:\W?{_UUID}.{{0,4}}$)",
    "has only digits": r"\d+$",
}
"""Patterns of what only another key can replace; the tokens are those of github.com/gitleaks/gitleaks."""

_LETTER_PAIRS = (
    "454455664765444495435569876544985757634376934366886737792999339498489469399949396939934754982996734999873797299936"
    "975639955948997766446668686443867334767567499945992995992994953999694788295629958549943649999929981999388678399694"
    "699989554445588664523695338699962996199959798659994649999627792987396567389654488959299527793883883899444899592599"
    "299939966834993859999939443738487786499943579968745475786864426593445669972988399959939834937456994999999999999599"
    "999999099999367528593976554895455789674959294639558755984249797839892993399878499355597959565638595764337593336889"
    "961989299939999649958969996939993993299895379659899959492939993998997299739997894557566657746442983378596925672979"
    "296755479777486956"
)
"""For a letter (rows: first in a word, after a, ..., after z) -log2 of its probability, at most 9, in words of
English and fourteen other languages (Python's reference and Django's translations)."""


@cache  # not at the import: an app with a generated key does not need it
def _pair_shares() -> dict[str, dict[str, float]]:
    """Return for each letter how often each letter follows."""
    shares = {}
    for letter, costs in zip(" " + ascii_lowercase, re.findall(".{26}", _LETTER_PAIRS), strict=True):
        weights = {after: 2.0 ** -int(cost) for after, cost in zip(ascii_lowercase, costs, strict=True)}
        total = sum(weights.values())
        shares[letter] = {after: weight / total for after, weight in weights.items()}
    return shares


_WORD_LIST = """
a abc access account add admin after again all alphanumeric always an and another any api app application are at auth
aws azure backend bad bar base battery baz be before begin big bitte but by bytes cache cambiar can case change
changeme changer character characters choose cipher class clave cle client cloud cluster code com company complex
config configure cookie copy correct create credential credentials csrf customer data database deadbeef decrypt default
define demo denied deploy deployment dev development different do docker does dog dont dummy each edit eight email
empty encrypt encrypted ensure enter env environment error ever every example exception external failed fake fallback
false file fill five flask foo for forbidden forget found four fox from frontend geheim generate generated generator
get git goes google hack hacker hard has hash have hello here hex hidden hmac home horse host http https id if in
insecure insert int internal into invalid is it its itsdangerous job jumps just jwt keep key keyring keys know latest
lazy least length less letter lib like line list local localhost long lower machine made magic make manager many master
me mega message minimum missing modify more most much must my name need never new nine no nobody node none not now null
number oauth of off ok on one only ops or order our over own pass passphrase password passwort paste path permission
phrase pick placeholder please port private prod product production produktion project provide provided proxy public
put python queue quick qux random randomly rather read real really region remember replace request reset resource
response rest root rotate rotation run safe salt salted same sample schluessel secret secreta secrets secure security
sentence server service session set setting settings seven sha should sign signing site six some something specify
staging staple start storage string strong such super supply sure system task team ten test testing text than that the
their then there they this three time to todo token top true two type ultra undefined under unguessable unique unknown
until up update upper urandom url use used user using usr uuid value var variable vault version versions very want was
we web website welcome when will with word words worker world write www xyz yes you your yourself"""


@cache
def _beginnings() -> Counter[str]:
    """Return how many words of the list, with the space after them, have each beginning."""
    return Counter(f"{word} "[:end] for word in _WORD_LIST.split() for end in range(len(word) + 2))


_ORDERS = (  # of the keys: the code, and the rows and columns of keyboards
    *(digits + ascii_lowercase, "1234567890-=qwertyuiop[]asdfghjkl;'zxcvbnm,./", "azertyuiopqsdfghjklmwxcvbn"),
    *("1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.0p;/", "qayxswedcvfrtgbnhzujmkiolp"),
)
_UNSHIFTED = str.maketrans('!@#$%^&*()_+{}:"<>?', "1234567890-=[];',./")
_LEET = str.maketrans("013457@$!", "oieastasi")


def refusal(text: str) -> tuple[str, str | None] | None:
    """Return why `text`, of MIN_LENGTH to MAX_LENGTH characters, is no random key, and a hint; None if it is."""
    for marks, hint in ((_WRONG_TEXT, PUT_KEY), (_OTHER_SECRET, None)):
        for reason, patterns in marks.items():
            if re.match("|".join(patterns.split()), text, re.DOTALL):
                return reason, hint
    if any(character.isspace() for character in text):
        return "has white space or a line break inside", "remove it: a key is one word on one line"
    core = re.sub("[^0-9a-zA-Z]" if re.fullmatch(_TWO_UUIDS, text) else "={1,6}$", "", text)
    alphabet = next((alphabet for alphabet in _ALPHABETS if set(core) <= set(alphabet)), None)
    if alphabet is None:
        return "has characters that no key generator uses", None
    if saved_bits(core, alphabet) >= MAX_SAVING:
        return "does not look random: it has words, repetitions or other patterns", None
    if any(saved_bits(decoded, _BYTES) >= MAX_SAVING for decoded in _decoded(core)):
        return "does not look random: it is text in another encoding", None
    return None


def saved_bits(text: str, alphabet: str) -> float:
    """Return how many bits the guesser saves on `text`, or on its best beginning, against a uniform code."""
    trust, fresh = _TRUST, [share * 0.03 for share in _TRUST]
    saved = best = 0.0
    for odds in zip(*(predictor(text, alphabet) for predictor in _PREDICTORS), strict=True):
        worth = list(map(mul, trust, (1.0, *odds)))
        total = sum(worth)
        saved += log2(total)
        best = max(best, saved)
        trust = [0.97 * share / total + again for share, again in zip(worth, fresh, strict=True)]
    return best


def _frequent(kind: Callable[[str], object], weight: int, text: str, alphabet: str) -> Iterator[float]:
    """Each kind of character as often as so far; `weight` is the number of characters after which that counts half."""
    written, seen = Counter(map(kind, alphabet)), Counter[object]()
    for length, each in enumerate(map(kind, text)):
        yield (seen[each] * len(alphabet) / written[each] + weight) / (length + weight)
        seen[each] += 1


def _case(character: str) -> str:
    if not " " < character < "\x7f":
        return "other"
    return "a" if character.islower() else "A" if character.isupper() else "0" if character.isdigit() else "-"


def _repetition(text: str, alphabet: str) -> Iterator[float]:
    """What followed the same two characters before."""
    followed: dict[str, str] = {}
    for at, character in enumerate(text):
        context = text[max(0, at - 2) : at]
        yield 0.9 * len(alphabet) * (followed[context] == character) + 0.1 if context in followed else 1.0
        followed[context] = character


def _sequence(order: str, stride: int, text: str, alphabet: str) -> Iterator[float]:
    """The same step again along `order` between the keys `stride` apart, or one step up or down."""
    written = Counter(alphabet.lower().translate(_UNSHIFTED))
    codes = {key: code for code, key in enumerate(key for key in order if key in written)}
    keys = text.lower().translate(_UNSHIFTED)
    places, size = [codes.get(key) for key in keys], len(codes)
    for at, place in enumerate(places):
        earlier, before = (places[at - 2 * stride], places[at - stride]) if at >= 2 * stride else (None, None)
        if earlier is None or before is None:
            yield 1.0
        elif place is None:
            yield 0.1
        else:
            step, again = (place - before) % size, (before - earlier) % size
            chance = 0.7 * (step == again) + 0.15 * (step == 1) + 0.05 * (step == size - 1)
            yield chance * len(alphabet) / written[keys[at]] + 0.1


def _letters(text: str, alphabet: str, leet: float) -> Iterator[tuple[str, float, float]]:
    """For each character: the letter it means, if any, how likely it is written so, and how likely as a sign.

    `leet` is the share of letters that are written as a digit, as a sign, or in the other case.
    """
    signs = len(set(alphabet) - set(ascii_letters)) or 1
    cases, separator = "", ""
    for character in text:
        sign = 0.3 / signs + (0.7 if character == separator else 0)
        if character in ascii_letters:
            case, expected = _case(character), "a" if cases.endswith("a") or cases in ("A", "aA") else "A"
            likely = 1 - leet if case == expected else leet  # expected: lower, Camel or UPPER
            yield character.lower(), (1 - leet) * (likely if cases else 0.5), 0.0
            cases = (cases + case)[-2:]
        elif (letter := character.translate(_LEET)) in ascii_letters:
            yield letter, leet / 2, sign
        else:
            yield "", 0.0, sign
            separator = character


def _pairs(leet: float, text: str, alphabet: str) -> Iterator[float]:
    """Words of any European language, letter by letter."""
    before, pairs = " ", _pair_shares()
    for letter, written, sign in _letters(text, alphabet, leet):
        yield (0.86 * pairs[before].get(letter, 0.0) * written + 0.14 * sign) * len(alphabet)
        before = letter or " "


def _words(text: str, alphabet: str) -> Iterator[float]:
    """Words of the list, one after the other or with signs between: each beginning of one has its share."""
    share, beginnings = {"": 1.0}, _beginnings()
    for letter, written, sign in _letters(text, alphabet, leet=0.1):
        following, outside = defaultdict[str, float](float), share.pop("")
        for beginning, weight in share.items():
            if letter and (longer := beginning + letter) in beginnings:
                following[longer] = weight * beginnings[longer] / beginnings[beginning] * 0.9 * written
            outside += weight * beginnings[f"{beginning} "] / beginnings[beginning]
        if letter and letter in beginnings:
            following[letter] += outside * 0.7 * beginnings[letter] / beginnings[""] * 0.9 * written
        following[""] = 0.1 / len(alphabet) + outside * 0.3 * 0.9 * sign
        total = sum(following.values())
        yield total * len(alphabet)
        share = {beginning: weight / total for beginning, weight in following.items()}


_PREDICTORS: tuple[Predictor, ...] = (
    *(partial(_pairs, 0.02), partial(_pairs, 0.2), _words, _repetition),
    *(partial(_frequent, _case, 2), partial(_frequent, str, 12), partial(_frequent, _HEX.__contains__, 2)),
    *(partial(_sequence, order, stride) for order in _ORDERS for stride in (1, 2, 3, 4)),
)
_TRUST = [0.4, 0.25, *[0.35 / (len(_PREDICTORS) - 1)] * (len(_PREDICTORS) - 1)]
"""At first: most in chance, then in words. The sum is 1."""


def _decoded(text: str) -> Iterator[str]:
    """What `text`, or a long run in it, is in hexadecimal, base32 or base64, cut anywhere, where it may be text."""
    for alphabet, bits, source in (
        (_HEX, 4, text.lower()),
        (_BASE32, 5, text),
        (_ALNUM + "+/", 6, text.replace("-", "+").replace("_", "/")),
    ):
        for run in re.findall(f"[{alphabet}]{{16,}}", source):
            stream = "".join(f"{alphabet.index(character):0{bits}b}" for character in run)
            for start in range(0, 8, gcd(8, bits)):
                octets = [chr(int(stream[at : at + 8], 2)) for at in range(start, len(stream) - 7, 8)]
                if 4 * sum(" " <= octet <= "~" for octet in octets) >= 3 * len(octets):
                    yield "".join(octets)
        if set(source) <= set(alphabet):
            return
