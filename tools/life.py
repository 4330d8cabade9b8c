"""Draw pictures/life-light.svg and life-dark.svg, a key's life: uv run tools/life.py."""

from pathlib import Path
from typing import NamedTuple

PICTURES = Path(__file__).resolve().parent.parent / "pictures"
WIDTH, HEIGHT = 880, 256
BAKE, ROTATE, SWITCH, EXPIRE, END = 104, 296, 420, 684, 872
"""Where the moments are, from left to right; not to scale."""
FIRST, SECOND, BAR = 84, 142, 44
"""Where the bars of the two keys begin, from the top, and how high a bar is."""
BELOW = SECOND + BAR + 46
IN_THE_MIDDLE, TO_THE_LEFT, BOLD = ' text-anchor="middle"', ' text-anchor="end"', ' font-weight="600"'


class Paint(NamedTuple):
    """The colors of one state: what fills it, its edge, its words; and the dashes of the edge."""

    fill: str
    edge: str
    words: str
    dashes: str = "none"


class Theme(NamedTuple):
    """The colors on one background."""

    words: str
    quiet: str
    line: str
    upcoming: Paint
    signing: Paint
    retired: Paint
    expired: Paint


THEMES = {
    "light": Theme(
        words="#1f2328",
        quiet="#59636e",
        line="#b7bfc8",
        upcoming=Paint("#ddf4ff", "#0969da", "#0550ae"),
        signing=Paint("#1a7f37", "#1a7f37", "#ffffff"),
        retired=Paint("#fff8c5", "#9a6700", "#7d4e00"),
        expired=Paint("none", "#818b98", "#59636e", "5 4"),
    ),
    "dark": Theme(
        words="#f0f6fc",
        quiet="#9198a1",
        line="#57606a",
        upcoming=Paint("#0c2d6b", "#4493f8", "#a5d6ff"),
        signing=Paint("#238636", "#2ea043", "#ffffff"),
        retired=Paint("#3d2e00", "#d29922", "#f2cc60"),
        expired=Paint("none", "#656c76", "#9198a1", "5 4"),
    ),
}
TITLE = (
    "The life of two keys. The bake makes the first, which signs. A rotation adds the second, which only"
    " verifies for an hour; then it signs, and the first only verifies, for 7 days; then the first expires."
)


def picture(theme: Theme) -> str:
    """The whole picture on one background."""
    signs, verifies = ("signing", "signs and verifies"), "verifies"
    parts = [
        _words(BAKE - 14, FIRST + 27, "first key", theme.words, TO_THE_LEFT + BOLD),
        _words(BAKE - 14, SECOND + 27, "second key", theme.words, TO_THE_LEFT + BOLD),
        *_moment(BAKE, "bake", "mints a key", theme),
        *_moment(ROTATE, "rotate", "one command", theme),
        *_moment(SWITCH, "1 hour later", "all instances switch", theme),
        *_moment(EXPIRE, "7 days later", "by itself", theme),
        *_bar(FIRST, BAKE, SWITCH, signs, theme.signing),
        *_bar(FIRST, SWITCH, EXPIRE, ("retired", verifies), theme.retired),
        *_bar(FIRST, EXPIRE, END, ("expired", "does neither"), theme.expired),
        *_bar(SECOND, ROTATE, SWITCH, ("upcoming", verifies), theme.upcoming),
        *_bar(SECOND, SWITCH, END, signs, theme.signing),
        *_span(ROTATE, SWITCH, theme),
        *_span(SWITCH, EXPIRE, theme),
        _words(SWITCH - 12, BELOW, "lead", theme.words, TO_THE_LEFT + BOLD),
        _words(SWITCH - 12, BELOW + 19, "every instance gets the new keyring", theme.quiet, TO_THE_LEFT),
        _words(SWITCH + 12, BELOW, "retention", theme.words, BOLD),
        _words(SWITCH + 12, BELOW + 19, "what the first key signed runs out", theme.quiet),
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img"'
        " font-family=\"-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif\""
        ' font-size="13">'
    )
    return "\n".join([head, f"<title>{TITLE}</title>", *parts, "</svg>\n"])


def _words(x: int, y: int, text: str, color: str, how: str = "") -> str:
    return f'<text x="{x}" y="{y}" fill="{color}"{how}>{text}</text>'


def _moment(x: int, what: str, more: str, theme: Theme) -> list[str]:
    """A moment: its name, and a line through both bars."""
    return [
        _words(x, 22, what, theme.words, IN_THE_MIDDLE + BOLD),
        _words(x, 42, more, theme.quiet, IN_THE_MIDDLE),
        f'<path d="M{x} 54V{SECOND + BAR + 14}" stroke="{theme.line}" stroke-dasharray="3 3"/>',
    ]


def _bar(y: int, begin: int, end: int, words: tuple[str, str], paint: Paint) -> list[str]:
    """A state of a key: what it is called and what the key does in it."""
    middle, (state, does) = (begin + end) // 2, words
    return [
        f'<rect x="{begin + 1}" y="{y}" width="{end - begin - 2}" height="{BAR}" rx="5"'
        f' fill="{paint.fill}" stroke="{paint.edge}" stroke-dasharray="{paint.dashes}"/>',
        _words(middle, y + 19, state, paint.words, IN_THE_MIDDLE + BOLD),
        _words(middle, y + 36, does, paint.words, IN_THE_MIDDLE),
    ]


def _span(begin: int, end: int, theme: Theme) -> list[str]:
    """A length of time, below the bars."""
    shape = f"M{begin + 3} {SECOND + BAR + 20}v6H{end - 3}v-6"
    return [f'<path d="{shape}" fill="none" stroke="{theme.quiet}"/>']


def main() -> None:
    """Write both pictures."""
    PICTURES.mkdir(exist_ok=True)
    for name, theme in THEMES.items():
        (PICTURES / f"life-{name}.svg").write_text(picture(theme), "utf-8")


if __name__ == "__main__":
    main()
