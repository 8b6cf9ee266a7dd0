"""TensorBoard's way in. It starts whatever is wrong with the tab, so nothing that could fail is imported here."""

from __future__ import annotations

import argparse
from typing import Any

from tensorboard.plugins import base_plugin


class AttentionLoader(base_plugin.TBLoader):  # type: ignore[misc]  # TensorBoard ships no types
    """Adds one flag to TensorBoard's command line, and the plugin, unless that cannot be loaded."""

    def define_flags(self, parser: argparse.ArgumentParser) -> None:
        """The flag that allows own texts where others can reach TensorBoard."""
        parser.add_argument_group("Attention").add_argument(
            "--attention_own_text",
            action="store_true",
            help="Let whoever reaches this TensorBoard run a run's model on a text in the Attention tab; "
            "without it that is offered only where TensorBoard listens on localhost.",
        )

    def load(self, context: Any) -> Any:
        """The plugin, or None where it cannot be made, with the reason in TensorBoard's log."""
        try:
            from minitx.tensorboard.plugin.plugin import AttentionPlugin

            return AttentionPlugin(context)
        except Exception as error:
            from tensorboard.util import tb_logging

            tb_logging.get_logger().warning("The Attention tab is missing: %s", error)
            return None
