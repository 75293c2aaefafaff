"""What commands with options in argparse's style share. Imports no heavy library."""

from __future__ import annotations

import argparse
from typing import NoReturn

from ablations.runtime.errors import UserError, one_line


class OneLineParser(argparse.ArgumentParser):
    """argparse with one line, instead of its usage, for a mistake. Wants `prog` as people type it."""

    def error(self, message: str) -> NoReturn:
        self.exit(UserError.exit_code, f"error: {one_line(message)} ({self.prog} --help shows how)\n")
