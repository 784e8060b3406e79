"""`earmark completion`: the script that makes a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from earmark.cli.output import CompletionOut
from earmark.cli.session import Session
from earmark.cli.verb import Verb

HOW = {
    "bash": 'eval "$(earmark completion bash)"            # in ~/.bashrc',
    "zsh": 'eval "$(earmark completion zsh)"             # in ~/.zshrc',
    "fish": "earmark completion fish > ~/.config/fish/completions/earmark.fish",
}


@click.command(
    cls=Verb,
    examples=(
        'eval "$(earmark completion bash)"                                    in ~/.bashrc',
        'eval "$(earmark completion zsh)"                                     in ~/.zshrc',
        "earmark completion fish > ~/.config/fish/completions/earmark.fish",
    ),
)
@click.argument("shell", type=click.Choice(tuple(HOW)))
@click.pass_context
def completion(context: click.Context, *, shell: str) -> int:
    """Print the completion script of a shell."""
    session: Session = context.obj
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell}")
    script = kind(context.find_root().command, {}, "earmark", "_EARMARK_COMPLETE").source()
    if session.json:
        session.emit(CompletionOut(shell=shell, script=script, how=HOW[shell]))
    else:
        session.out(script)
    return 0
