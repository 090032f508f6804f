"""`python -m hpc`: the same as `hpc`, where the console script is not installed."""

from hpc.cli import main

if __name__ == "__main__":
    main()
