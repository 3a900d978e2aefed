"""Recordings: whatever files, pipes and arrays hold, as frames of sound on one clock.

What comes from where: ``source`` gives bytes, ``containers`` opens them, ``joins`` says where files
that were put together begin, ``lengths`` what a container tells of its length, ``tracks`` which of
its tracks is meant, ``reading`` decodes it, ``clock`` puts silence into holes, ``blocks`` makes of
frames what the network hears and what people hear, ``passes`` goes through a file, and
``recording`` hands out both.
"""
