"""What a user sees as one line instead of a traceback, and the exit code of each."""


def one_line(message: object) -> str:
    """The message on one line: line breaks of any kind, and the blanks around them, become one blank."""
    return " ".join(part for part in (line.strip() for line in str(message).splitlines()) if part)


class OneLineError(Exception):
    """What ends a command with `error: ...`, one line that names the thing and, if there is one, the remedy, and with `exit_code`."""

    exit_code = 1

    def __init__(self, message: object):
        super().__init__(one_line(message))


class UserError(OneLineError, ValueError):
    """A mistake that the user can mend, such as an unknown key. Its message is one line that names the thing and the remedy."""

    exit_code = 2


class RunFolderError(OneLineError, RuntimeError):
    """A run folder that cannot be read, written or locked (full disk, no permission). Its message is one line with the path."""
