"""Everything that TensorBoard shows of a run, in its built-in tabs and in the Attention tab of `plugin/`."""
