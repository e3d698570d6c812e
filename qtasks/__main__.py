"""`python -m qtasks`: the command line."""

from qtasks.cli import main

if __name__ == "__main__":
    main()
