"""Text to speech: what turns text into the sound of somebody saying it."""

from lipwire.speech.choosing import open_voice
from lipwire.speech.sentences import MAX_TEXT, sentences
from lipwire.speech.synthesis import SpokenPiece, Voice

__all__ = ["MAX_TEXT", "SpokenPiece", "Voice", "open_voice", "sentences"]
