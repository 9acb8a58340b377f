"""`python -m cohortnet` is `cohortnet`."""

from cohortnet.cli import main

main()
