"""The command line: one module for each verb, which parses, builds and calls."""
