"""`python -m x2roto`."""

from x2roto.cli.app import main

if __name__ == "__main__":
    main()
