"""How a tree of dataclasses becomes a command line: keys and their constraints, text to values, YAML to keys, and the key list of --help.

Knows no key by name: the keys are declared in config.py, each with its kind, help text, profile values and constraint in one
`option(...)`, and every message, check and help line here is generated from that declaration.
"""

import difflib
import logging
import math
import os
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ablations.runtime.command_line import hint
from ablations.runtime.errors import UserError
from ablations.runtime.foreign import is_file, shown
from ablations.runtime.yaml_files import readable_yaml

Scalar = bool | int | float | str | None
UNSET: Any = object()  # not None, which is a value that keys can take
HELP_HINT = hint("run")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Option:
    """What is declared about one key: see `option` for the meaning of each field."""

    kind: str
    text: str
    tiny: Scalar = UNSET
    paper: Scalar = UNSET
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    multiple_of: int | None = None
    choices: tuple[str, ...] | Callable[[], tuple[str, ...]] | None = None
    path: bool = False
    listed: bool = False
    needs: str | None = None
    as_before: Scalar = UNSET
    only_adds: bool = False

    @property
    def may_be(self) -> tuple[str, ...] | None:
        """The choices as they are now: those of an open table grow with what is registered."""
        return self.choices() if callable(self.choices) else self.choices


def option(default: Scalar, kind: str, text: str, **declared: Any) -> Any:
    """A dataclass field that is a config key.

    kind: "train" | "eval" | "run" | "seed"; text: one line of help; tiny, paper: the value in that profile where it is not the default;
    least, most, above, below, multiple_of, choices (a tuple, or a function that gives it): the constraint (null is allowed exactly where
    the type says `| None`);
    path: a file or folder, whose `~` and `./` are resolved; listed: names with commas between them, or a YAML list of names;
    needs: "key=value", without which this key has no effect;
    as_before: for a key added after results exist, the value that means what those results did (see `config.digest`);
    only_adds: it decides what is drawn and scored besides, and changes no value of what is there anyway: arms that differ in such keys
    alone may be compared.
    """
    assert kind in ("train", "eval", "run", "seed"), kind
    return field(default=default, metadata={"option": Option(kind, text, **declared)})


@dataclass(frozen=True)
class Key:
    """One config key: its dotted name, type (bool, int, float or str), whether null is allowed, default and declaration."""

    name: str
    type: type
    optional: bool
    default: Scalar
    option: Option

    def profile_default(self, profile: str) -> Scalar:
        value = getattr(self.option, profile)
        return self.default if value is UNSET else value

    def allowed(self) -> str:
        """What the key may be, in words, as in "an integer from 1 to 256 or null"."""
        o = self.option
        if o.may_be:
            words = "one of " + ", ".join(o.may_be)
        elif self.type is bool:
            words = "true or false"
        elif self.type is str:
            words = "a path" if o.path else "names with commas between them" if o.listed else "text"
        else:
            words = "an integer" if self.type is int else "a number"
            if o.least is not None and o.most is not None:
                words += f" from {o.least} to {o.most}"
            else:
                bounds = (("of at least", o.least), ("above", o.above), ("of at most", o.most), ("below", o.below))
                words += " " * any(bound is not None for _, bound in bounds)
                words += " and ".join(f"{word} {bound}" for word, bound in bounds if bound is not None)
            words += f", a multiple of {o.multiple_of}" if o.multiple_of else ""
        return words + " or null" * self.optional


def keys_of(config_class: type, prefix: str = "") -> dict[str, Key]:
    """Every key of a dataclass tree by dotted name, in the order of declaration."""
    hints = typing.get_type_hints(config_class)
    keys: dict[str, Key] = {}
    for item in fields(config_class):
        name, hint = prefix + item.name, hints[item.name]
        if is_dataclass(hint):
            keys |= keys_of(hint, name + ".")
            continue
        members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        (plain,) = (member for member in members if member is not type(None))
        keys[name] = Key(name, plain, type(None) in members, item.default, item.metadata["option"])
    return keys


def show(value: object) -> str:
    """A value as one writes it on the command line: null, true, 5e-05, tiny."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def convert(key: Key, raw: object, where: str = "") -> Scalar:
    """The typed value of `raw`, which is text from a command line or a scalar from YAML or JSON.

    `where` ends the message, as in " in sweep.yaml". Raises UserError naming the key, what it may be and what was given.
    """

    def refuse(why: str = "") -> typing.NoReturn:
        given = repr(raw) if isinstance(raw, str) else show(raw)
        given = given if len(given) <= 100 else given[:97] + "..."
        raise UserError(f"{key.name} must be {key.allowed()}, not {given}{why}{where}")

    text = raw.strip() if isinstance(raw, str) else raw
    if key.option.listed and isinstance(text, list) and all(isinstance(word, str) for word in text):
        text = ",".join(text)
    if isinstance(text, str):
        if "${" in text or text == "???":
            refuse(" (values are plain, without interpolation)")
        if text.lower().lstrip("+-") in ("nan", "inf", "infinity", ".nan", ".inf"):
            refuse()
        if not text.isprintable() or not text:
            refuse(" (write null for no value)" if key.optional and not text else "")
    if text is None or text in ("null", "None"):
        return None if key.optional else refuse()
    if isinstance(text, list | dict):
        refuse()
    value = _CONVERTERS[key.type](text)
    if value is UNSET or not _within(key.option, value):
        refuse(" (quote text that YAML reads as something else)" if key.type is str and not isinstance(text, str) else "")
    return os.path.normpath(os.path.expanduser(value)) if key.option.path else value


def _to_bool(text: object) -> Any:
    return {"true": True, "false": False}.get(str(text).lower(), UNSET) if isinstance(text, bool | str) else UNSET


def _to_float(text: object) -> Any:
    if isinstance(text, bool):
        return UNSET
    try:
        value = float(text)  # type: ignore[arg-type]
    except (ValueError, OverflowError, TypeError):
        return UNSET
    return value if math.isfinite(value) else UNSET


def _to_int(text: object) -> Any:
    if isinstance(text, str):
        try:
            return int(text)  # exact, also beyond the 53 bits of a float
        except ValueError:
            pass
    elif isinstance(text, int) and not isinstance(text, bool):
        return text
    number = _to_float(text)  # 6.0 is how W&B writes a 6 drawn from a uniform distribution
    return int(number) if number is not UNSET and number.is_integer() else UNSET


def _to_str(text: object) -> Any:
    return str(text) if isinstance(text, str | int) and not isinstance(text, bool) else UNSET  # 1.10 as text is no longer 1.10


_CONVERTERS = {bool: _to_bool, int: _to_int, float: _to_float, str: _to_str}


def _within(o: Option, value: Any) -> bool:
    return (
        (o.may_be is None or value in o.may_be)
        and (o.least is None or value >= o.least)
        and (o.most is None or value <= o.most)
        and (o.above is None or value > o.above)
        and (o.below is None or value < o.below)
        and (o.multiple_of is None or value % o.multiple_of == 0)
    )


def require_known(name: str, keys: Mapping[str, Key], where: str = "", help_hint: str = HELP_HINT) -> None:
    """Raises UserError for a name that is no key, with the nearest known key and, by `help_hint`, where they are all listed."""
    if name in keys:
        return
    group = [known for known in keys if known.startswith(name + ".")]
    if group:
        raise UserError(f"'{name}' is a group of keys{where}; set its keys one by one, as in {group[0]}={show(keys[group[0]].default)}")
    # a forgotten group (mse_weight for loss.mse_weight) is the likeliest slip, and difflib rates short wrong keys above it
    near = [known for known in keys if known.rpartition(".")[2] == name.rpartition(".")[2].lower().replace("-", "_")]
    near = near or difflib.get_close_matches(name.lower(), keys, n=1)
    guess = f"; did you mean {' or '.join(repr(known) for known in near)}?" if near else ""
    raise UserError(f"unknown key {name!r}{where}{guess} {help_hint}")


def read_command_line(argv: Iterable[str], keys: Mapping[str, Key], help_hint: str = HELP_HINT) -> dict[str, str]:
    """`key=value` and `--key=value` arguments as text by key. Raises UserError for an unknown or repeated key and a missing '='."""
    given: dict[str, str] = {}
    for argument in argv:
        name, equals, text = argument.removeprefix("--").partition("=")
        if not equals:
            remedy = f"write {name}=true" if name in keys and keys[name].type is bool else "arguments are written key=value"
            raise UserError(f"{argument!r} has no '='; {remedy} {help_hint}")
        require_known(name, keys, help_hint=help_hint)
        if name in given:
            raise UserError(f"{name} is given twice on the command line ({given[name]!r} and {text!r}); give it once")
        given[name] = text
    return given


def read_yaml(path: str, keys: Mapping[str, Key]) -> dict[str, object]:
    """The raw values of a YAML file by dotted key; the file may nest (`loss: {mse_weight: 2}`) or not (`loss.mse_weight: 2`).

    Raises UserError, naming the file, where it is missing, no YAML (with the line), no mapping, or has an unknown or repeated key.
    """
    where = f" in {path}"
    content = load_yaml(path)
    given: dict[str, object] = {}

    def collect(mapping: Mapping[Any, object], prefix: str) -> None:
        for part, value in mapping.items():
            name = f"{prefix}{part}"
            is_group = any(known.startswith(name + ".") for known in keys)
            if is_group and (value is None or isinstance(value, dict)):  # None: a group whose lines are all commented out
                collect(value or {}, name + ".")
                continue
            require_known(name, keys, where)
            if name in given:
                raise UserError(f"{name} is given twice{where}; give it once")
            given[name] = value

    collect(content, "")
    return given


def load_yaml(path: str) -> dict[Any, object]:
    """The content of a config file. Raises UserError, naming the file, where it is missing, no YAML (with the line) or no mapping."""
    if not is_file(path):
        raise UserError(f"config: there is no file {shown(path)!r}")
    with readable_yaml(path, OmegaConfBaseException):  # for a file with a lone scalar, OmegaConf raises an OSError without a reason
        content = OmegaConf.to_container(OmegaConf.load(Path(path)), resolve=False)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected key: value lines, not a list")
    return content


def warn_of_no_effect(given: Iterable[str], values: Mapping[str, Scalar], keys: Mapping[str, Key]) -> list[str]:
    """Logs a warning for each key that was set although what it needs is off, and returns their names."""
    idle = []
    for name in given:
        needed, _, needed_value = (keys[name].option.needs or "").partition("=")
        if needed and show(values[needed]) != needed_value:
            logger.warning("%s=%s has no effect: it needs %s=%s", name, show(values[name]), needed, needed_value)
            idle.append(name)
    return idle


def key_list(keys: Mapping[str, Key], titles: Mapping[str, str], width: int = 130) -> str:
    """The keys of --help, by group: `key=default  kind  help; what it may be; its value in the other profile`."""
    column = max(len(f"{key.name}={show(key.profile_default('tiny'))}") for key in keys.values())
    indent = 2 + column + len("  train  ")
    lines: list[str] = []
    group = None
    for key in keys.values():
        if key.name.rpartition(".")[0] != group:
            group = key.name.rpartition(".")[0]
            lines += ["", f"{group + '.*: ' if group else ''}{titles[group]}"]
        tiny, paper = key.profile_default("tiny"), key.profile_default("paper")
        parts = [key.option.text]
        parts += [key.allowed()] if key.optional or key.allowed() not in ("true or false", "text", "a path") else []
        parts += [f"needs {key.option.needs}"] if key.option.needs else []
        parts += [f"profile=paper: {show(paper)}"] if paper != tiny else []
        head = f"  {key.name + '=' + show(tiny):<{column}}  {key.option.kind:<5}  "
        lines += textwrap.wrap("; ".join(parts), width, initial_indent=head, subsequent_indent=" " * indent)
    return "\n".join(lines[1:])
