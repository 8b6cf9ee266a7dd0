"""Log each head's strongest examples in validation text while a model trains."""

from minitx.heads import examples_file, snapshots
from minitx.heads.examples import find_examples, is_due, tokens_to_scan
from minitx.training.state import Training


def log_examples(training: Training) -> None:
    """Write the file of examples, if one is due after this step."""
    config, run, prepared = training.config, training.run.path, training.prepared
    if is_due(training.step, config):
        about = training.step, snapshots.run_id(run) or ""
        count = tokens_to_scan(config)
        examples_file.write(run, find_examples(training.model, prepared.tokenizer, prepared.val, count, *about))
