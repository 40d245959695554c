"""`python -m tfkt_node`: the same as the command `tfkt-node`."""

from tfkt_node.cli import main

if __name__ == "__main__":
    main()
