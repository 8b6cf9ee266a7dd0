"""What TensorBoard shows of a run: its own tabs, and the Attention tab in `plugin/`."""
