"""Train here, or submit with -m. `python run.py --help` lists what can be configured."""

from hpc.cli.run import main

if __name__ == "__main__":
    main()
