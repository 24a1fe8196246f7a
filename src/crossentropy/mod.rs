//! Cross-entropy of a language model over vocabulary tiles: the logits of a batch never exist at once.
