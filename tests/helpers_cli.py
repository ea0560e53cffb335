"""The command line in a process of its own."""

#: Runs it in a process that takes Ctrl-C, however the tests themselves were started.
PROGRAM = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from tumble.cli import main; main()"
)
