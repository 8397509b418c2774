"""The one exception of the helper's side; the engine's side turns it into a `SandboxError`.

The helper cannot raise `imagekit.errors`: those need attrs, which costs more than its whole start.
"""


class SetupError(Exception):
    """A step, or the helper, cannot be set up.

    Attributes:
        code: a stable word for programs.
        hint: what would help; may be empty.
    """

    def __init__(self, message: str, *, code: str = "sandbox", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint
