"""One module for each verb of the command line; each has `main(arguments) -> exit status`."""
