"""The transformer whose activations were read."""

from __future__ import annotations

from typing import Any

from sparsecode.report import figures
from sparsecode.report.blocks import Section, shown
from sparsecode.report.facts import Facts


def section(facts: Facts) -> Section | None:
    """The loss during training; None if the run did not train a model."""
    result = facts.result("train-gpt")
    if not result:
        return None
    return Section(
        "gpt",
        "The transformer",
        sentence(result),
        [],
        shown(figures.gpt_loss(facts)),
        how="Validation loss is the mean over held-out documents; bits per byte divides it by the bytes of their text, "
        "so that it does not depend on the tokenizer.",
        numbers={key: value for key, value in result.items() if isinstance(value, int | float | str)},
    )


def sentence(result: dict[str, Any]) -> str:
    """The model's headline numbers in words."""
    parts = []
    if result.get("steps") is not None:
        seen = result.get("tokens_seen")
        parts.append(f"trained for {result['steps']:,} steps" + (f" on {seen:,} tokens" if seen else ""))
    if result.get("val_loss") is not None:
        bits = result.get("bits_per_byte")
        words = f"reached a validation loss of {result['val_loss']:.3f} nats per token"
        parts.append(words + (f" ({bits:.3f} bits per byte)" if bits is not None else ""))
    return f"The transformer {' and '.join(parts)}." if parts else "The transformer was trained."
