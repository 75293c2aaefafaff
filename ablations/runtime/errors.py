"""What a user sees as one line instead of a traceback, and the exit code of each."""


def one_line(message: object) -> str:
    """The message on one line: line breaks of any kind, and the blanks around them, become one blank."""
    return " ".join(part for part in (line.strip() for line in str(message).splitlines()) if part)


# What a line on the screen may be at most, with what stands before a message ("error: ").
LONGEST_LINE = 300
_BEFORE = len("error: ")
# Of a long value so much is shown at each end.
_END = 40


def shortened(message: object, longest: int = LONGEST_LINE - _BEFORE) -> str:
    """The message on one line of at most `longest` characters: long values in it are cut in their middle, then the line is."""
    text = one_line(message)
    for value in sorted(set(text.split()), key=len, reverse=True):
        if len(text) <= longest or len(value) <= 2 * _END + 3:
            break
        end = max(_END, (len(value) - (len(text) - longest) - 3) // 2)
        text = text.replace(value, f"{value[:end]}...{value[-end:]}")
    # How a message ends, in the remedy and in where the help is, is worth as much as how it begins.
    return text if len(text) <= longest else f"{text[: longest - 123]}...{text[-120:]}"


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
