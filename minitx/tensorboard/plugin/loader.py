"""Loads the plugin. An error here would keep TensorBoard from starting, so nothing that could fail is imported."""

import argparse
from typing import Any

from tensorboard.plugins import base_plugin


class AttentionLoader(base_plugin.TBLoader):  # type: ignore[misc]  # TensorBoard ships no types
    """Adds one flag to TensorBoard's command line, and the plugin if it can be loaded."""

    def define_flags(self, parser: argparse.ArgumentParser) -> None:
        """Add the flag that allows own texts even if others can reach TensorBoard."""
        parser.add_argument_group("Attention").add_argument(
            "--attention_own_text",
            action="store_true",
            help="Let everyone who can reach this TensorBoard run a model on their own text in the Attention tab. "
            "Without the flag only TensorBoard on localhost offers that.",
        )

    def load(self, context: Any) -> Any:
        """The plugin, or None if it cannot be loaded; TensorBoard's log then says why."""
        try:
            from minitx.tensorboard.plugin.plugin import AttentionPlugin

            return AttentionPlugin(context)
        except Exception as error:
            from tensorboard.util import tb_logging

            tb_logging.get_logger().warning("The Attention tab is missing: %s", error)
            return None
