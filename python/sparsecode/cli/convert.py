"""`sparsecode convert`: dictionaries and models from one library's files to another's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sparsecode.cli.options import debug_option, force_option, json_option, quiet_option
from sparsecode.interop import MODEL_TARGETS, TARGETS

if TYPE_CHECKING:
    from sparsecode.interop.convert import Converted
    from sparsecode.interop.formats import Found


@click.command("convert")
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.argument("destination", metavar="DST", type=click.Path(path_type=Path))
@click.option("--to", required=True, type=click.Choice([*TARGETS, *MODEL_TARGETS]), help="The format to write.")
@force_option
@json_option
@quiet_option
@debug_option
def command(source: Path, destination: Path, to: str, force: bool, as_json: bool, quiet: bool) -> None:
    """Turn one library's files into those of another.

    SRC is a dictionary of sparsecode, SAELens, dictionary_learning, sparsify, openai/sparse_autoencoder, Llamascopium,
    Gemma Scope, Llama Scope or circuit-tracer (which, is found by looking), or a folder of several: then DST has as
    many, under the same names. Each copy is read back and compared with its original on random activations. What is
    broken, or cannot be said in the format, is left out and listed, and the exit code is 3.

    With --to hf, SRC is a GPT of this project (its folder, or its run) or of nanoGPT; with --to sparsecode it may also
    be a Hugging Face GPT-2 folder or nanoGPT's safetensors file.

    \b
    Examples:
      sparsecode convert sparsecode-run/dictionaries/n512_l1-0.015_s0 my-sae --to saelens
      sparsecode convert sparsecode-run/dictionaries my-saes --to dictionary_learning
      sparsecode convert their-sae my-dictionary --to sparsecode
      sparsecode convert sparsecode-run my-gpt2 --to hf
    """
    from sparsecode.cli.output import print_json, tell_left_out
    from sparsecode.interop import convert_model, find_dictionaries, find_model, not_recognised

    # A run has a model and dictionaries: which is meant, the target says.
    model = find_model(source) if to in (*MODEL_TARGETS, "sparsecode") else None
    if to in MODEL_TARGETS or model not in (None, "gpt"):
        done = convert_model(model, source, destination, to, force=force)
        if as_json:
            print_json(done)
        elif not quiet:
            click.echo(f"{destination}: {done['from']} -> {to}")
        return
    found = find_dictionaries(source)
    if not found:
        raise not_recognised(source)
    converted, refused = _convert_all(source, found, destination, to, force)
    if as_json:
        print_json({"converted": [one.as_json() for one in converted], "refused": refused})
    elif not quiet:
        click.echo("\n".join(line for one in converted for line in _lines(one)), nl=bool(converted))
    tell_left_out([(one["source"], one["reason"]) for one in refused], len(found))


def _convert_all(
    source: Path, found: list[Found], destination: Path, to: str, force: bool
) -> tuple[list[Converted], list[dict[str, Any]]]:
    """Converts what can be read and said in the target, and says of the rest why not; of a lone one, raises it."""
    from sparsecode.errors import DictionaryInvalid, InvalidSetting, LeftOut, NotExpressible
    from sparsecode.interop.convert import convert
    from sparsecode.pipeline.advice import told

    converted: list[Converted] = []
    refused = LeftOut() if len(found) > 1 else LeftOut(None)
    for one in found:
        home = one.home
        inside = home.resolve() != source.resolve() and source.is_dir() and home.is_relative_to(source)
        place = destination / home.relative_to(source) if inside else destination
        with refused.where(str(one.path), DictionaryInvalid, InvalidSetting, NotExpressible):
            converted.append(convert(one, place, to, force=force))
    return converted, [{"source": path, "reason": told(error)} for path, error in refused.found]


def _lines(one: Converted) -> list[str]:
    dictionary = one.dictionary
    shown = f"{dictionary.activation.name}, {dictionary.dict_size} features of {dictionary.activation_dim} dimensions"
    head = f"{one.path}: {one.source.format} -> {one.to}, {shown}; largest difference {one.difference:.1e}"
    return [head, *(f"  {note}" for note in one.notes)]
