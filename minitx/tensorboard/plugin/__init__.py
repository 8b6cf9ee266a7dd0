"""The Attention tab of TensorBoard: heads watched while they form. Never imports torch; the viewer is in static/."""
