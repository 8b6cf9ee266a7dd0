"""TensorBoard's Attention tab: watch heads while they form. Never imports torch. The viewer is in static/."""
