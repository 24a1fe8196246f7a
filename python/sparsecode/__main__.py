"""`python -m sparsecode` is `sparsecode`."""

from sparsecode.cli import main

if __name__ == "__main__":
    main(prog_name="sparsecode")
