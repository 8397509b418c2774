"""The program that is the helper; run by path, before anything of the package is imported.

The packages `imagekit` and `imagekit.sandbox` are entered as empty shells, so that their modules
can be imported without what the real packages import.
"""

import sys

Module = type(sys)


def start() -> None:
    """Read the arguments (control and program fds, rung, package folder) and run the helper."""
    control, program, rung, folder = sys.argv[1:]
    for name, path in (("imagekit", folder), ("imagekit.sandbox", f"{folder}/sandbox")):
        shell = Module(name)
        shell.__path__ = [path]
        sys.modules[name] = shell
    import os  # noqa: PLC0415 - after the shells, as all imports here

    from imagekit.sandbox import helper  # noqa: PLC0415

    if program != "-":
        os.close(int(program))
    os.set_inheritable(int(control), False)  # noqa: FBT003 - its only argument
    helper.main(int(control), rung, folder)
    os._exit(0)  # taking the interpreter apart would keep the engine waiting for 6 ms


if __name__ == "__main__":
    start()
