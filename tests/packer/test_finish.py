"""The times of an image: those of its layers, so that an unchanged build gives the same one."""

from imagekit.oci.config import History, ImageConfig
from imagekit.oci.digest import Digest
from imagekit.oci.platform import Platform
from imagekit.packer.finish import finish, rfc3339

BASE = History(created="2020-01-01T00:00:00Z", created_by="base")
LAYER = History(created_by="COPY")
EMPTY = History(created_by="ENV", empty_layer=True)
DIFF_IDS = (Digest.of(b"1"), Digest.of(b"2"))


def finished(
    *history: History, times: tuple[int, ...], epoch: int | None = None, base_history: int = 1
) -> ImageConfig:
    plan = ImageConfig(platform=Platform("linux", "amd64"), history=history)
    return finish(
        plan,
        base_history=base_history,
        diff_ids=DIFF_IDS,
        layer_times=times,
        otherwise=9,
        epoch=epoch,
    )


def seconds(config: ImageConfig) -> list[str]:
    return [entry.created[-3:-1] for entry in config.history]


def test_times_are_written_as_utc() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00Z"
    assert rfc3339(1_767_323_045) == "2026-01-02T03:04:05Z"


def test_each_layer_has_its_own_time_and_what_is_empty_that_before_it() -> None:
    made = finished(BASE, EMPTY, LAYER, EMPTY, LAYER, EMPTY, times=(10, 20))
    assert seconds(made) == ["00", "10", "10", "10", "20", "20"]
    assert made.created == rfc3339(20)


def test_the_history_of_the_base_stays_as_it_is() -> None:
    made = finished(BASE, BASE, LAYER, times=(10,), base_history=2)
    assert made.history[:2] == (BASE, BASE)


def test_without_a_new_layer_the_time_is_the_one_given() -> None:
    made = finished(BASE, EMPTY, times=())
    assert (made.history[1].created, made.created) == (rfc3339(9), rfc3339(9))


def test_without_any_history_there_is_a_time() -> None:
    assert finished(times=(), base_history=0).created == rfc3339(9)


def test_an_epoch_is_the_time_of_everything_new() -> None:
    made = finished(BASE, EMPTY, LAYER, LAYER, times=(10, 20), epoch=5)
    assert seconds(made) == ["00", "05", "05", "05"]
    assert made.created == rfc3339(5)
    assert finished(BASE, LAYER, times=(10,), epoch=0).created == rfc3339(0)


def test_the_layers_are_those_of_the_build() -> None:
    assert finished(BASE, LAYER, times=(10,)).diff_ids == DIFF_IDS
