"""The studio: a three-dimensional character, made of mathematics, rendered with Blender's Cycles.

Plain numpy, in head space (x to the viewer's right, y up, z towards the viewer; the head is about
2 units high): ``shapes``, ``head``, ``face`` (the skin under six mouth controls), ``skin``,
``eyes``, ``mouth``, ``hair``, ``clothes``, and ``motion`` (how the head moves in the idle loop).

Blender (``bpy``): ``objects``, ``materials``, ``light``, ``character``, ``stage``, ``room``.

The dataset folder: ``choose`` picks mouths to render, ``render`` is the program that renders them,
``folder`` knows what is still missing, ``pictures`` and ``storage`` handle pixels and files.

Nothing of this is needed to run an avatar. The Blender modules run in an environment of their own
(requirements/studio.txt), ``choose`` in the one for training.
"""
