"""`python -m hubclient`."""

from hubclient.cli import main

main()
