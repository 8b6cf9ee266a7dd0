"""`minitx walkthrough RUN --text …`: one attention layer step by step, with real numbers, each step checked.

With --html as a page: the layer as blocks, all heads at once, and the same steps folded below.

Without --text, or with --word and --contexts, it also shows one word in two contexts: one embedding, two vectors.
"""

from collections.abc import Sequence

from minitx.commands.shared import run_parser, tell_spelled, write_page
from minitx.config.parsing import parse_plain
from minitx.system.errors import UserError, require
from minitx.system.files import check_page_name

TEXT, BANKS = "The animal was too tired.", ("They crossed the river to the bank.", "They took the money to the bank.")
TEXTS = {"tales": "The animal didn't cross the street because it was too tired."}
"""data.source → the text to attend over, if it is not `TEXT`."""
CONTEXTS = {
    "tales": [
        ("bank", ("One day Sara and Maya went to the bank.", "One day Sara went to the park. The dog near the bank.")),
        ("It", ("One day Sara and Maya found a red fox. It was", "One day Sara and Maya found a red hat. It was")),
    ]
}
"""data.source → words with two contexts each, if they are not "bank" and `BANKS`."""


def main(arguments: Sequence[str], prog: str) -> int:
    """Show the layer that the command line names; the exit status."""
    parser = run_parser(prog, __doc__, newest=True)
    parser.add_argument("--text", help="Text to attend over; by default a sentence about an animal.")
    parser.add_argument("--layer", type=int, default=0, help="Layer, counted from 0.")
    parser.add_argument("--head", type=int, default=0, help="Head whose numbers are shown, counted from 0.")
    parser.add_argument("--token", type=int, help="Token whose row is shown, counted from 0; by default the last.")
    parser.add_argument("--html", metavar="FILE", help="Write one self-contained page instead.")
    parser.add_argument("--word", help="Word to compare in the two texts of --contexts.")
    parser.add_argument("--contexts", nargs=2, help="Two texts with the word; without --text two senses of bank.")
    options = parse_plain(parser, arguments)
    require(options.text != "", "The text is empty: give some words.")
    together = "--word and --contexts belong together: name a word and two texts that have it."
    require((options.word is None) == (options.contexts is None), together)
    if options.html is not None:
        check_page_name(options.html)

    import torch

    from minitx.heads.blocks import Blocks, page_data
    from minitx.heads.contexts import compare_contexts
    from minitx.heads.walkthrough import Step, walk
    from minitx.heads.walkthrough_page import as_text, steps_html
    from minitx.run.folder import Run
    from minitx.tensorboard.plugin.blocks_page import blocks_page

    run = Run.find(options.run)
    model, checkpoint = run.load_model(options.checkpoint, torch.device("cpu"))
    tokenizer, source = run.tokenizer(), run.config().data.source
    tokens = tokenizer.encode(options.text or TEXTS.get(source, TEXT))
    if options.text is not None:
        tell_spelled(tokenizer, options.text)
    else:
        tokens = tokens[: model.config.context_length]
    require(
        options.token is None or 0 <= options.token < len(tokens),
        f"There is no token {options.token}: the text has tokens 0 to {len(tokens) - 1}.",
    )
    labels = tokenizer.token_labels(tokens)
    walked = walk(model, tokens, labels, options.layer, options.head, options.token)
    pairs = CONTEXTS.get(source, [("bank", BANKS)]) if options.text is None else []
    if options.contexts:
        pairs = [(options.word, tuple(options.contexts))]
    try:
        contexts = [step for pair in pairs for step in compare_contexts(model, tokenizer, *pair)]
    except UserError as error:
        if options.contexts:
            raise
        contexts = [Step("One word in two contexts", f"Left out: {error}", "", [])]
    if options.html is None:
        print(as_text(walked, contexts))
    else:
        blocks = Blocks(model, tokens, options.layer)
        data = page_data(blocks, tokenizer.token_text, options.head, walked.query)
        title = f"Heads as blocks: {run.path.name}, {checkpoint}, layer {options.layer}"
        write_page(options.html, blocks_page(data, steps_html(walked, contexts), title=title))
    return 0
