"""``python -m tumble``: the command line, for environments where the `tumble` script is not on the path."""

from tumble.cli import main

if __name__ == "__main__":
    main()
