"""Synthetic speech with phone timings, and the mouth that goes with it."""

from lipwire.training.speech.corpus import build_corpus, load_split, plan
from lipwire.training.speech.mixtures import Mixture, draw
from lipwire.training.speech.utterance import Utterance

__all__ = ["Mixture", "Utterance", "build_corpus", "draw", "load_split", "plan"]
