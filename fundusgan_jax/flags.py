"""One parser of arguments for every command: a mistake is one line that names the nearest right word."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from fundusgan_jax.errors import UserError

SETTING = "--config."
_CHOICE = re.compile(r"invalid choice: '?(?P<word>[^' ]*)'? \(choose from (?P<choices>.*)\)")


class Parser(argparse.ArgumentParser):
    """Arguments whose mistakes are a UserError; names are not to be abbreviated.

    Takes argparse.ArgumentParser's own arguments. Descriptions keep their line breaks.
    """

    def __init__(self, **arguments: Any) -> None:
        usual: dict[str, Any] = {
            "allow_abbrev": False,
            "formatter_class": argparse.RawDescriptionHelpFormatter,
        }
        super().__init__(**usual | arguments)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:  # type: ignore[override]
        """The arguments; UserError naming the nearest one for an unknown word."""
        words = sys.argv[1:] if args is None else args
        self._refuse_unknown(words)
        known, rest = self.parse_known_args(words, namespace)
        if rest:
            raise self._unknown(rest[0])
        return known

    def parse_with_settings(self, words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """The arguments, and the words of a configuration's settings: '--config.NAME=VALUE', or NAME and VALUE apart.

        Raises:
            UserError: another word is unknown; names the nearest argument.
        """
        self._refuse_unknown(word for word in words if not word.startswith(SETTING))
        known, settings = self.parse_known_args(words)
        position = 0
        while position < len(settings):
            word = settings[position]
            if not word.startswith(SETTING):
                raise self._unknown(word)
            position += 1 if "=" in word else 2
        return known, settings

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print; of a wrong choice the nearest right one is named."""
        choice = _CHOICE.search(message)
        near = _nearest(choice["word"], re.findall(r"[^', ]+", choice["choices"])) if choice else ""
        raise UserError(f"{message}; {near or '--help shows the arguments'}")

    def options(self) -> list[str]:
        """The names of all arguments that begin with a dash, those of the commands below this one too."""
        names = [name for action in self._actions for name in action.option_strings]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                names += [name for parser in action.choices.values() for name in parser.options()]
        return names

    def _refuse_unknown(self, words: Iterable[str]) -> None:
        # Before argparse looks: it would name what is missing, and not the misspelt word that was meant for it.
        names = self.options()
        for word in words:
            if word == "--":
                return
            if word.startswith("--") and word.split("=")[0] not in names:
                raise self._unknown(word)

    def _unknown(self, word: str) -> UserError:
        hint = _nearest(word.split("=")[0], self.options()) or "--help shows the arguments"
        return UserError(f"unknown argument {word}; {hint}")


def _nearest(word: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, names, 1)
    return f"did you mean {near[0]}?" if near else ""
