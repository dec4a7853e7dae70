"""`python -m inceptionnet` is the command `inceptionnet`."""

from inceptionnet.cli import main

if __name__ == "__main__":
    main()
