"""``python -m send_va``: the command line where no script is on the path."""

from send_va.cli import main

main()
