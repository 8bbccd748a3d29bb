"""`haat content …`: how far the portal's long texts are, drafts by the market's services, the help pages."""

from __future__ import annotations

import click

from haat.app import Platform
from haat.cli.console import as_json_text, json_option, on_platform, print_table
from haat.cli.main import with_settings
from haat.content.model import Page, Standing, Translation, check_tag
from haat.kernel.permissions import PLATFORM
from haat.language import Tag
from haat.settings import Settings


@click.group()
def content() -> None:
    """See the portal's long texts, translate them, lay out the help pages."""


@content.command("list")
@json_option
@with_settings()
def list_pages(settings: Settings, as_json: bool) -> None:
    """List all pages and how far each is in each language."""

    async def find(platform: Platform) -> list[tuple[Page, list[Standing]]]:
        return await platform.content.pages(PLATFORM)

    rows = [
        {
            "key": page.key,
            "kind": page.kind,
            "language": str(one.tag),
            "published": one.published,
            "in_work": one.working,
            "state": one.state,
            "stale": one.stale,
        }
        for page, standings in on_platform(settings, find)
        for one in standings
    ]
    if as_json:
        click.echo(as_json_text(rows))
        return
    print_table(
        ("Page", "Kind", "Language", "Published", "In work", "State", "Stale"),
        (
            (*list(row.values())[:3], row["published"] or "", row["in_work"] or "", row["state"] or "", row["stale"])
            for row in rows
        ),
        nothing="There is no page: `haat content seed` lays out the help pages.",
    )


@content.command("seed")
@json_option
@with_settings()
def seed(settings: Settings, as_json: bool) -> None:
    """Publish the help pages that come with the platform; what somebody wrote stays as it is."""
    from haat.bootstrap import ensure_help_pages

    laid = on_platform(settings, ensure_help_pages)
    if as_json:
        click.echo(as_json_text([{"key": key, "language": str(tag)} for key, tag in laid]))
        return
    for key, tag in laid:
        click.echo(f"Published {key} in {tag.name}.")
    if not laid:
        click.echo("Everything is there already.")


def _language(_: click.Context, __: click.Parameter, given: str | None) -> Tag | None:
    return check_tag(given) if given else None


@content.command("translate")
@click.argument("key")
@click.argument("language", callback=_language)
@click.option("--from", "source", callback=_language, help="The language to translate from; default the page's own.")
@json_option
@with_settings()
def translate(settings: Settings, key: str, language: Tag, source: Tag | None, as_json: bool) -> None:
    """Make a draft of a page by the translation memory and the market's services. The platform must be running."""

    async def make(platform: Platform) -> Translation:
        return await platform.content.translate(PLATFORM, key, language, source)

    draft = on_platform(settings, make)
    if as_json:
        click.echo(as_json_text({"key": key, "language": str(language), "version": draft.version}))
    else:
        click.echo(f"{key} has a draft in {language.name}: review it on the portal before it is published.")
