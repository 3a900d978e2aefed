"""Synthetic speech with phone timings, and the mouth that goes with it."""

from studio.speech.corpus import build_corpus, load_split, plan
from studio.speech.mixtures import Mixture, draw
from studio.speech.utterance import Utterance

__all__ = ["Mixture", "Utterance", "build_corpus", "draw", "load_split", "plan"]
