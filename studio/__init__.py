"""How the demo avatar is made: its speech, its character, and what the network learns from.

Speech: ``speech`` has synthesisers say sentences and knows when each phone begins; ``train_audio``
and ``evaluate_audio`` are of the audio encoder that learns from it, ``mouth_metric`` of how alike
two mouths look, ``heldout`` of the sentences that are kept back.

Character: a three-dimensional head, made of mathematics, rendered with Blender's Cycles. ``meshes``
is plain NumPy, in head space (x to the viewer's right, y up, z towards the viewer; the head is
about 2 units high), ``motion`` is how the head moves in the idle loop, ``blender`` needs ``bpy``.

The dataset folder: ``choose`` picks mouths to render, ``render`` is the program that renders them,
``folder`` knows what is still missing, ``pictures`` and ``storage`` handle pixels and files.

None of this is in the wheel, and nothing of Lipwire imports it. It runs from the repository:
``python -m studio.speech``, ``studio.heldout``, ``studio.choose``, ``studio.train_audio`` in the
environment for training, ``python -m studio.render`` in one with Blender (requirements/studio.txt).
"""
