"""`python -m loracook`: the command line where the script `loracook` is not on the path."""

from loracook.cli import main

main()
