"""`python -m hubclient.cli`."""

from hubclient.cli import main

main()
