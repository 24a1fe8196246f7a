"""One file per library: makes its dictionaries, and loads them with its own loader. Run in environments of theirs."""
