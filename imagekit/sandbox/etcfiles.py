"""The texts of /etc/hosts and /etc/resolv.conf that a step sees (security.md X-12)."""

from collections.abc import Iterable


def hosts(hostname: str, extra: Iterable[tuple[str, str]]) -> str:
    """/etc/hosts: loopback, the step's own name, then `extra` (name, address) pairs."""
    lines = [
        f"127.0.0.1\tlocalhost {hostname}".rstrip(),
        "::1\tlocalhost ip6-localhost ip6-loopback",
        *(f"{address}\t{name}" for name, address in extra),
    ]
    return "\n".join(lines) + "\n"


def resolv_conf(host_text: str, *, keep_loopback: bool) -> str:
    """The host's resolvers, without those that only the host itself can reach if so asked."""
    lines = (line.rstrip() for line in host_text.splitlines())
    kept = [line for line in lines if keep_loopback or not _is_loopback(line)]
    return "\n".join(kept) + "\n" if kept else ""


def _is_loopback(line: str) -> bool:
    words = line.split()
    return words[:1] == ["nameserver"] and any(
        word == "::1" or word.startswith("127.") for word in words[1:2]
    )
