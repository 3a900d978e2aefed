"""`python -m lipwire` is `lipwire`."""

from lipwire.cli.main import main

main()
