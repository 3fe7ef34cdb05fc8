"""One parser for every command: mistakes name the nearest right word, settings pass through."""

import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.flags import Parser


def parser() -> Parser:
    flags = Parser(prog="command")
    flags.add_argument("--workdir", required=True)
    flags.add_argument("--mode", choices=("train", "eval"), default="train")
    flags.add_argument("--num", type=int, default=1)
    return flags


def nested() -> Parser:
    flags = Parser(prog="command")
    commands = flags.add_subparsers(dest="command", required=True)
    commands.add_parser("export").add_argument("--names")
    return flags


def test_arguments_and_settings_are_told_apart():
    words = ["--config.seed=3", "--workdir=a", "--config.loss.l2", "2", "--num", "4"]
    known, settings = parser().parse_with_settings(words)
    assert (known.workdir, known.num, settings) == ("a", 4, ["--config.seed=3", "--config.loss.l2", "2"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--workdri=a"],
            "unknown argument --workdri=a; did you mean --workdir?",
        ),  # not: --workdir is missing
        (["--workdir=a", "--mod=eval"], "did you mean --mode?"),  # no abbreviations
        (["--workdir=a", "--mode=evl"], "did you mean eval?"),
        (["--workdir=a", "--num=many"], "--num: invalid int value: 'many'; --help shows the arguments"),
        (["--workdir=a", "stray"], "unknown argument stray; --help shows the arguments"),
        ([], "required: --workdir"),
    ],
)
@pytest.mark.parametrize("method", [Parser.parse_args, Parser.parse_with_settings])
def test_a_mistake_names_the_nearest_right_word(words, message, method):
    with pytest.raises(UserError) as refused:
        method(parser(), words)
    assert message in str(refused.value)


def test_settings_are_for_commands_that_take_them():
    with pytest.raises(UserError, match="unknown argument --config.seed=3"):
        parser().parse_args(["--workdir=a", "--config.seed=3"])


def test_the_arguments_of_commands_below_are_known():
    assert nested().parse_args(["export", "--names=ours"]).names == "ours"
    with pytest.raises(UserError, match="did you mean --names"):
        nested().parse_args(["export", "--nmes=ours"])
    with pytest.raises(UserError, match="did you mean export"):
        nested().parse_args(["exprot"])
