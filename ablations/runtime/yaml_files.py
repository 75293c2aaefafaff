"""YAML that people write: whatever is wrong with it is one line that names the file and, where it is known, the line in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import yaml

from ablations.runtime.errors import UserError, one_line
from ablations.runtime.foreign import shown

# What PyYAML's constructors raise by themselves: `!!int abc`, a date that there is not, a number of thousands of digits, `!!timestamp x`.
_OF_CONSTRUCTORS = (ValueError, KeyError, AttributeError, TypeError, IndexError, OverflowError, RecursionError)


@contextmanager
def readable_yaml(path: str | os.PathLike[str], *further: type[Exception]) -> Iterator[None]:
    """Around the reading of a YAML file: Raises UserError for what is none, `further` exceptions of a library among them."""
    try:
        yield
    except UserError:
        raise
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: {shown(error.problem or error.context)}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or 'expected key: value lines'}") from None
    except (yaml.YAMLError, *_OF_CONSTRUCTORS, *further) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"{path}: not a readable YAML file ({shown(what)})") from None
