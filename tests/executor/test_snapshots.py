"""Layer folders that steps share, and cache folders, when steps run side by side."""

import errno
import os

import pytest

from imagekit.errors import ImagekitError
from tests.support.building import Project

TOUCHED = "touch -d @1000 /new /"


def test_what_a_step_copied_up_unchanged_is_not_seen_on_another_base(busybox: Project) -> None:
    built = busybox.build(
        f"""FROM busybox AS one
        RUN echo 1 > /f; {TOUCHED.replace("/new", "/f")}
        RUN chmod 600 /f; chmod 644 /f; echo hi > /new; {TOUCHED}
        RUN cat /f
        FROM busybox
        RUN echo 2 > /f; {TOUCHED.replace("/new", "/f")}
        COPY --from=one /f /after-it
        RUN echo hi > /new; {TOUCHED}
        RUN cat /f > /seen
        """
    )
    assert built.text("seen") == "2\n"


def test_an_empty_layer_does_not_bring_what_was_copied_up_for_it(busybox: Project) -> None:
    built = busybox.build(
        """FROM busybox AS one
        RUN echo 1 > /f
        RUN chown 0:0 /f
        RUN cat /f
        FROM busybox
        RUN echo 2 > /f
        COPY --from=one /f /after-it
        RUN true
        RUN cat /f > /seen
        """
    )
    assert built.text("seen") == "2\n"


def test_a_folder_that_was_made_anew_hides_nothing_on_another_base(busybox: Project) -> None:
    busybox.write({"one/x": "", "two/x": "", "two/y": "two"})
    built = busybox.build(
        """FROM busybox AS one
        COPY one /d
        RUN rm -r /d && mkdir /d && touch -d @1000 /d /
        RUN ls /d
        FROM busybox
        COPY two /d
        COPY --from=one /etc/passwd /after-it
        RUN rm /d/x && touch -d @1000 /d /
        RUN cat /d/y > /seen
        """
    )
    assert built.text("seen") == "two"


def test_steps_lock_their_caches_in_one_order(busybox: Project) -> None:
    def mounts(*names: str) -> str:
        return " ".join(
            f"--mount=type=cache,sharing=locked,id={name},target=/{at}"
            for at, name in enumerate(names)
        )

    built = busybox.build(
        f"""FROM busybox AS one
        RUN {mounts("x", "y")} sleep 0.1; echo 1 > /one
        FROM busybox AS two
        RUN {mounts("y", "x")} sleep 0.1; echo 2 > /two
        RUN {mounts("x", "x")} touch /0/f && ls /1/f
        FROM scratch
        COPY --from=one /one /
        COPY --from=two /two /
        """,
        jobs=2,
    )
    assert built.text("one") + built.text("two") == "1\n2\n"


def test_a_cache_that_was_left_half_made_is_made_anew(busybox: Project) -> None:
    text = """FROM busybox
    RUN --mount=type=cache,id=c,target=/c,from=busybox,source=/etc cat /c/passwd > /seen
    """
    busybox.build(text)
    (made,) = (busybox.store / "caches").iterdir()
    half = made.rename(made.with_suffix(".new"))
    (half / "passwd").unlink()
    assert "root" in busybox.build(text, no_cache=True).text("seen")


def test_whiteouts_in_an_opaque_folder_are_not_seen(busybox: Project) -> None:
    busybox.write({"d/.wh..wh..opq": "", "d/.wh.old": "", "d/new": "", "old/old": ""})
    built = busybox.build("FROM busybox\nCOPY old /d\nCOPY d /d\nRUN ls -A /d > /seen\n")
    assert built.text("seen") == "new\n"


def test_a_full_disk_while_layers_are_laid_out_is_a_typed_error(
    busybox: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("imagekit.executor.snapshots.Workbench.extract", full)
    with pytest.raises(ImagekitError, match="No space left") as caught:
        busybox.build("FROM busybox\nRUN true\n", sandbox="auto")
    assert caught.value.code == "no-space"


def test_a_cache_starts_with_what_a_context_has(busybox: Project) -> None:
    busybox.write({"seed/f": "seeded"})
    built = busybox.build(
        "FROM busybox\nRUN --mount=type=cache,target=/c,from=seeds cat /c/f > /seen\n",
        build_contexts={"seeds": busybox.context / "seed"},
    )
    assert built.text("seen") == "seeded"
