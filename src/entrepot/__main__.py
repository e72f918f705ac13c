"""`python -m entrepot` is the command `entrepot`."""

from entrepot.cli import main

main()
