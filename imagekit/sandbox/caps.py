"""What a step may do as root: Docker's fourteen capabilities, and how the others are dropped."""

from typing import Final

from imagekit.sandbox import syscalls

LAST: Final = 40  # CAP_CHECKPOINT_RESTORE; a kernel may know fewer or more
DOCKER: Final = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_BIND_SERVICE": 10,
    "NET_RAW": 13,
    "SYS_CHROOT": 18,
    "MKNOD": 27,
    "AUDIT_WRITE": 29,
    "SETFCAP": 31,
}
DOCKER_MASK: Final = sum(1 << number for number in DOCKER.values())


def last_known() -> int:
    """The greatest capability of the running kernel."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:  # noqa: PTH123 - pathlib costs the helper 5 ms
        return int(file.read())


def drop_bounding_set(last: int) -> None:
    """Keep only Docker's in the bounding set; needs CAP_SETPCAP."""
    for number in range(last + 1):
        if not DOCKER_MASK >> number & 1:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)


def drop_rest(*, root: bool) -> None:
    """Leave Docker's as permitted and effective for root, none for others; no ambient ones."""
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    mask = DOCKER_MASK if root else 0
    syscalls.capset(effective=mask, permitted=mask, inheritable=0)
