"""The database of a store, where many processes meet."""

import subprocess
import sys
from pathlib import Path


def test_a_new_store_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from imagekit.store.local import Store\n"
        "with Store(Path(sys.argv[1])) as store: store.tags()"
    )
    for number in range(5):
        command = [sys.executable, "-c", program, str(tmp_path / str(number))]
        running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
        errors = [process.communicate()[1].decode() for process in running]
        assert errors == ["", "", "", ""]
