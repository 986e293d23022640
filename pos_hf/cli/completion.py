"""`pos-hf completion SHELL`: a script by which a shell completes commands, flags, recipes and files."""

from importlib import import_module

from pos_hf.cli.parsing import CommandParser, importing

OVERRIDING = ("train", "demo", "check-data")
"""Commands that take every key of a config as a flag."""
BASH = """\
_pos_hf() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} words
    if [ "$COMP_CWORD" = 1 ]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$current"))
        return
    fi
    case ${{COMP_WORDS[1]}} in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current") $(compgen -f -- "$current"))
}}
complete -o filenames -F _pos_hf pos-hf
"""
ZSH = "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: The command's own arguments.

    Returns:
        0.
    """
    args = parser().parse_args(argv)
    words = words_of_commands()
    print({"bash": bash, "zsh": lambda words: ZSH + bash(words), "fish": fish}[args.shell](words), end="")
    return 0


def parser() -> CommandParser:
    """The command's arguments."""
    parser = CommandParser(
        prog="pos-hf completion",
        description="Print a script for your shell: `pos-hf completion bash > "
        "~/.local/share/bash-completion/completions/pos-hf`, `pos-hf completion fish > "
        "~/.config/fish/completions/pos-hf.fish`, or for zsh a file that ~/.zshrc sources.",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    return parser


def words_of_commands() -> dict[str, list[str]]:
    """Flags of every command, and recipes where a command takes one."""
    from pos_hf.cli.main import COMMANDS
    from pos_hf.runs.recipes import recipes

    with importing():
        from pos_hf.runs.config import config_keys

    keys = [f"--{key}" for key in sorted(config_keys())]
    words = {}
    for command in COMMANDS:
        own = import_module(f"pos_hf.cli.{command.replace('-', '_')}").parser()
        flags = [flag for flag in own._option_string_actions if flag.startswith("--")]
        words[command] = flags + (keys if command in OVERRIDING else [])
        words[command] += [*recipes()] if command in ("train", "recipes") else []
    words["completion"] += ["bash", "zsh", "fish"]
    return words


def bash(words: dict[str, list[str]]) -> str:
    """The script for bash.

    Args:
        words: Of each command.
    """
    cases = [f'        {command}) words="{" ".join(own)}" ;;' for command, own in words.items()]
    return BASH.format(commands=" ".join(words), cases="\n".join(cases))


def fish(words: dict[str, list[str]]) -> str:
    """The script for fish.

    Args:
        words: Of each command.
    """
    lines = [f"complete -c pos-hf -n __fish_use_subcommand -f -a '{' '.join(words)}'"]
    for command, own in words.items():
        where = f"complete -c pos-hf -n '__fish_seen_subcommand_from {command}'"
        lines += [f"{where} -l {word[2:]}" for word in own if word.startswith("--")]
        lines += [f"{where} -a '{' '.join(plain)}'" for plain in [[w for w in own if w[0] != "-"]] if plain]
    return "\n".join(lines) + "\n"
