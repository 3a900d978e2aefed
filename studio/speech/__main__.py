"""`python -m studio.speech FOLDER`: speak the corpus into a folder."""

import argparse
from pathlib import Path

from lipwire.training.stages import run_stage
from studio.speech.corpus import build_corpus


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m studio.speech", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the corpus goes; continued when it exists")
    parser.add_argument("--train", type=int, default=4000, help="training utterances (4000)")
    parser.add_argument("--held-out", type=int, default=120, help="held-out utterances (120)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)
    return run_stage(
        lambda: build_corpus(
            options.folder,
            train=options.train,
            held_out=options.held_out,
            seed=options.seed,
            quiet=options.quiet,
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
