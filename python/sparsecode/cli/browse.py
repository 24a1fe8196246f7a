"""`sparsecode browse`: every feature of a run on a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsecode.cli.options import Command, json_option, stage_options

if TYPE_CHECKING:
    from sparsecode.pipeline.config import BrowseConfig


@click.command("browse", cls=Command)
@stage_options("browse")
@click.option("--serve", is_flag=True, help="Then serve it on 127.0.0.1 alone, with a field to try a text in.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="With --serve: the port; 0: any."
)
@click.option(
    "--export",
    type=(click.Choice(["saedashboard", "neuronpedia"]), click.Path(path_type=Path)),
    metavar="FORMAT OUT",
    help="Then write it into folder OUT for saedashboard or neuronpedia.",
)
@json_option
def command(
    config: BrowseConfig,
    run: Path,
    force: bool,
    quiet: bool,
    as_json: bool,
    serve: bool,
    port: int,
    export: tuple[str, Path] | None,
) -> None:
    """Show every feature on a page.

    Writes browse/index.html and browse/data: a folder that any browser opens, without network, also from a mail or a
    web server. It shows where each feature of each dictionary and baseline is active, what it does to the predictions,
    and what is near it in every other dictionary; docs/browser.md says how to read it.

    \b
    Examples:
      sparsecode browse
      sparsecode browse --dictionaries 'n512*,pca,downloads/sae' --features live
      sparsecode browse --serve
      sparsecode browse --export neuronpedia for-neuronpedia
    """
    from sparsecode.cli.output import print_json
    from sparsecode.pipeline.browse import browse_features
    from sparsecode.pipeline.replicate import tell

    result = browse_features(run, config, force=force, quiet=quiet)
    if as_json:
        print_json(result)
    elif not quiet:
        tell("browse", result)
    if export is not None:
        from sparsecode.pipeline.browse import export_browser

        for folder in export_browser(run, *export):
            if not quiet and not as_json:
                click.echo(f"browse: {folder}")
    if serve:
        from sparsecode.pipeline.browse import serve_browser

        server = serve_browser(run, port)
        click.echo(f"browse: http://127.0.0.1:{server.server_port}/ until Ctrl-C", err=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            server.server_close()
