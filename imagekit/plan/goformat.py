"""How Go prints values: lines of history have that form, and tools read it back."""

from collections.abc import Iterable

from imagekit.oci.config import Healthcheck

_ESCAPES = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    "\\": r"\\",
    '"': r"\"",
}


def quoted_list(words: Iterable[str]) -> str:
    """`["a" "b"]`, as `%q` of a list."""
    return f"[{' '.join(map(quoted, words))}]"


def plain_list(words: Iterable[str]) -> str:
    """`[a b]`, as `%v` of a list."""
    return f"[{' '.join(words)}]"


def quoted(word: str) -> str:
    """The word between double quotes, as `%q`."""
    return f'"{"".join(map(_escaped, word))}"'


def _escaped(char: str) -> str:
    code = ord(char)
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char == " " or char.isprintable():
        return char
    if code < 0x80:
        return f"\\x{code:02x}"
    if 0xDC80 <= code <= 0xDCFF:
        # A byte that is not UTF-8.
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def duration(nanoseconds: int) -> str:
    """`1m0.5s`, as a Go duration prints."""
    if nanoseconds == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if nanoseconds < size * 1000:
            return _decimal(nanoseconds, size) + unit
    minutes, rest = divmod(nanoseconds, 60_000_000_000)
    seconds = _decimal(rest, 1_000_000_000) + "s"
    if not minutes:
        return seconds
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}"


def healthcheck(health: Healthcheck) -> str:
    """The structure as `%+v` prints it."""
    return (
        f"{{Test:{plain_list(health.test)} Interval:{duration(health.interval)}"
        f" Timeout:{duration(health.timeout)} StartPeriod:{duration(health.start_period)}"
        f" StartInterval:{duration(health.start_interval)} Retries:{health.retries}}}"
    )


def _decimal(value: int, size: int) -> str:
    whole, rest = divmod(value, size)
    if not rest:
        return str(whole)
    return f"{whole}.{str(rest + size)[1:]}".rstrip("0")
