"""The tree of commands. Modules of commands import what is heavy only when the command runs."""

import os
from itertools import pairwise
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lipwire.cli.commands import (
    avatar_compile,
    avatar_erase,
    avatar_evaluate,
    avatar_import,
    avatar_info,
    avatar_list,
    avatar_store,
    avatar_validate,
    bench,
    certs,
    client,
    compositing_server,
    config,
    converse,
    doctor,
    embed,
    health,
    inference_server,
    keys,
    models,
    plan,
    render,
    render_many,
    say,
    serve,
    service,
    top,
    up,
    version,
)
from lipwire.cli.exits import Interrupted
from lipwire.config.links import let_links_lead_out

_ANYWHERE = frozenset({"--debug", "--allow-links"})
"""Options of `lipwire` itself, which may stand behind the command as well."""


class Commands(TyperGroup):
    """The group of all commands.

    It passes Ctrl-C on to ``main`` as ``Interrupted``, where typer would end the process without a
    message. It also refuses empty arguments, because an empty path would mean the current folder.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse ``args`` as typer does, and return the arguments that are left. Options of
        ``lipwire`` itself may stand anywhere in ``args`` before ``--``. ``ctx`` is click's context.
        Raises InvalidInput for an empty argument, and for an option that ends in "=" without a
        value."""
        for before, text in pairwise(["lipwire", *args]):
            if not text or (text.startswith("--") and text.endswith("=")):
                from lipwire.domain import InvalidInput

                option = text.removesuffix("=") or before
                raise InvalidInput(f"an empty text follows {option}; leave it out or name a value")
        end = args.index("--") if "--" in args else len(args)
        own = [text for text in args[:end] if text in _ANYWHERE]
        others = [text for text in args[:end] if text not in _ANYWHERE]
        return super().parse_args(ctx, own + others + args[end:])

    def invoke(self, ctx: Any) -> Any:
        """Run the command of click's context ``ctx``, and return what it returns. Raises
        ``Interrupted`` in place of KeyboardInterrupt."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise Interrupted from interrupt


app = typer.Typer(
    name="lipwire",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
avatars = typer.Typer(no_args_is_help=True)
app.add_typer(
    avatars, name="avatar", help="Look at avatars, check them, prepare them, bring them in."
)

models_of = typer.Typer(no_args_is_help=True)
keys_of = typer.Typer(no_args_is_help=True)
certificates = typer.Typer(no_args_is_help=True)
services = typer.Typer(no_args_is_help=True)

app.command("render")(render.command)
app.command("render-many")(render_many.command)
app.command("say")(say.command)
avatars.command("list")(avatar_list.command)
avatars.command("info")(avatar_info.command)
avatars.command("validate")(avatar_validate.command)
avatars.command("compile")(avatar_compile.command)
avatars.command("erase")(avatar_erase.command)
avatars.command("evaluate")(avatar_evaluate.command)
avatars.command("import")(avatar_import.command)
avatars.command("push")(avatar_store.push)
avatars.command("pull")(avatar_store.pull)
avatars.command("publish")(avatar_store.publish)
avatars.command("rollback")(avatar_store.rollback)
avatars.command("versions")(avatar_store.versions)
avatars.command("forget")(avatar_store.forget)
app.command("serve")(serve.command)
app.command("inference-server")(inference_server.command)
app.command("compositing-server")(compositing_server.command)
app.command("up")(up.command)
app.command("client")(client.command)
app.command("converse")(converse.command)
app.command("health")(health.command)
app.command("embed")(embed.command)
app.add_typer(models_of, name="models", help="The avatars of a running server.")
models_of.command("list")(models.list_models)
models_of.command("load")(models.load)
models_of.command("unload")(models.unload)
models_of.command("stats")(models.stats)
models_of.command("erase")(models.erase)
app.add_typer(keys_of, name="keys", help="API keys of a server.")
keys_of.command("create")(keys.create)
keys_of.command("list")(keys.list_keys)
keys_of.command("revoke")(keys.revoke)
app.add_typer(certificates, name="certs", help="Certificates to try TLS with.")
certificates.command("dev")(certs.dev)
app.add_typer(config.app, name="config", help="Check the servers' configuration.")
app.add_typer(services, name="service", help="Servers as services of this system.")
services.command("print")(service.print_file)
services.command("install")(service.install)
services.command("uninstall")(service.uninstall)
app.command("doctor")(doctor.command)
app.command("top")(top.command)
app.command("bench")(bench.command)
app.command("plan")(plan.command)
app.command("version")(version.command)


@app.callback()
def lipwire(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (or LIPWIRE_DEBUG=1).")
    ] = False,
    allow_links: Annotated[
        bool,
        typer.Option(
            "--allow-links",
            help="Let links lead out of avatars' folders (or LIPWIRE_ALLOW_LINKS_OUTSIDE=1).",
        ),
    ] = False,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=version.show_and_exit, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """Speech in, a talking face out.

    Start with `lipwire render demo speech.wav -o talking.mp4`.
    """
    del show_version  # acted upon by its callback
    if debug:
        os.environ["LIPWIRE_DEBUG"] = "1"
    if allow_links:
        let_links_lead_out()
